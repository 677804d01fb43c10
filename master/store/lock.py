"""One process owns a data directory: an flock on `DIR/lock`, which holds the owner's pid.

The kernel drops the lock with the process, however it dies, so there is no
stale lock to clean up. The file itself stays.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from wire.errors import EnvironmentFault

NAME = "lock"


class DirectoryLock:
    """The claim on a data directory, held until `release`."""

    def __init__(self, directory: Path) -> None:
        """Create the directory if need be, and claim it.

        Raises:
            EnvironmentFault: `data_dir_in_use`, `data_dir_unusable`.
        """
        self._fd = _claim(directory)

    def release(self) -> None:
        """Give the directory up; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _claim(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _in_use(directory, owner) from error
        raise _unusable(directory, error) from error
    return fd


def _in_use(directory: Path, owner: str) -> EnvironmentFault:
    who = f"process {owner}" if owner else "another process"
    return EnvironmentFault(
        "data_dir_in_use",
        f"{directory} is in use by {who}, most likely another master; stop that one "
        f"(kill {owner or 'PID'}) or give this one a directory of its own with --data DIR",
    )


def _unusable(directory: Path, error: OSError) -> EnvironmentFault:
    advice = {
        errno.ENOTDIR: "a part of the path is a file; give a directory with --data DIR",
        errno.EEXIST: "it is a file; give a directory with --data DIR",
        errno.EACCES: "this user may not write there; change its owner or give --data DIR",
        errno.EPERM: "this user may not write there; change its owner or give --data DIR",
        errno.EROFS: "the filesystem is read-only; remount it or give --data DIR",
        errno.ENOSPC: "the disk is full; free space or give --data DIR on another disk",
        errno.ENOLCK: "the filesystem has no locks; give --data DIR on a local disk",
        errno.ENOSYS: "the filesystem has no locks; give --data DIR on a local disk",
        errno.EOPNOTSUPP: "the filesystem has no locks; give --data DIR on a local disk",
    }
    what = advice.get(error.errno or 0, "give another directory with --data DIR")
    return EnvironmentFault(
        "data_dir_unusable", f"can't use {directory} for data ({error.strerror}): {what}"
    )
