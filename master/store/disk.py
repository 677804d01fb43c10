"""The disk below the store: free space, syncing directories, and what its errors mean."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from wire.errors import EnvironmentFault

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FULL_CODES = frozenset({sqlite3.SQLITE_FULL})
# A statement that failed for these may succeed a little later.
PASSING_CODES = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def free_bytes(directory: Path) -> int:
    """Bytes that this user may still write on the directory's filesystem."""
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_full(error: BaseException) -> bool:
    """Whether the disk (or the quota) has no room."""
    if isinstance(error, sqlite3.Error):
        return _primary(error) in FULL_CODES
    return isinstance(error, OSError) and error.errno in FULL_ERRNOS


def is_environment(error: BaseException) -> bool:
    """Whether the disk is to blame, so that the same write may succeed later."""
    if isinstance(error, sqlite3.Error):
        return _primary(error) in FULL_CODES | PASSING_CODES
    return isinstance(error, OSError)


def _primary(error: sqlite3.Error) -> int:
    # Extended codes carry the primary one in their low byte; errors of the Python
    # module itself have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def full_fault(directory: Path, needed_bytes: int, reserve_bytes: int) -> EnvironmentFault:
    """No room for `needed_bytes` of new images on top of the reserve."""
    return EnvironmentFault(
        "storage_full",
        f"{directory} has {free_bytes(directory)} free bytes; {needed_bytes} bytes of images "
        f"need that much and {reserve_bytes} in reserve. Remove finished jobs, free space on "
        "that disk, or give a larger one with --data DIR",
    )


def failed_fault(directory: Path, error: BaseException) -> EnvironmentFault:
    """The disk refused a write for another reason than room."""
    return EnvironmentFault(
        "storage_failed",
        f"writing to {directory} failed: {error}. Look at the kernel log (dmesg) for this disk; "
        "what was accepted before is unharmed as far as the disk can be read",
    )
