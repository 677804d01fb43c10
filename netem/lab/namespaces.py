"""Namespaces of the kernel: make them, step in and out, hold them open.

A namespace lives as long as a process is in it or holds it open. Nothing here
gives one a name in `/run/netns`, so nothing is left of a lab whose processes
ended, however they ended.

Only for processes with one thread: another thread would stay where it was.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from netem.errors import MissingFeature

# Source: linux/sched.h
NEWNS: Final = 0x0002_0000
NEWUTS: Final = 0x0400_0000
NEWUSER: Final = 0x1000_0000
NEWNET: Final = 0x4000_0000
_KINDS: Final = {NEWUTS: "uts", NEWNET: "net"}


def unshare(flags: int, purpose: str) -> None:
    """Move this process into new namespaces.

    Raises:
        MissingFeature: the kernel doesn't allow it; `purpose` says for what it was.
    """
    if _libc().unshare(flags) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise MissingFeature(
            "namespaces",
            f"no namespace could be made for {purpose}: {reason}. Run as root, or let users make "
            "them: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns",
        )


def become_root_of_own() -> None:
    """A user namespace in which this user is root, and nothing outside of it changes.

    Raises:
        MissingFeature: the kernel doesn't allow it.
    """
    user, group = os.geteuid(), os.getegid()
    unshare(NEWUSER, "a lab without root")
    # A user may map only itself, and groups only after giving up setgroups (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")


class Place:
    """A network namespace and a host name, held open; this process is in a `Place` or another."""

    def __init__(self, net_fd: int, uts_fd: int) -> None:
        self.net_fd = net_fd
        self.uts_fd = uts_fd

    @classmethod
    def here(cls) -> Place:
        """Where this process is now."""
        return cls(_open("net"), _open("uts"))

    @classmethod
    def new(cls, purpose: str) -> Place:
        """A new one, which this process moves into.

        Raises:
            MissingFeature: the kernel doesn't allow it.
        """
        unshare(NEWNET | NEWUTS, purpose)
        return cls.here()

    @property
    def net_id(self) -> int:
        """Number by which `/proc/PID/ns/net` shows who is in it."""
        return os.fstat(self.net_fd).st_ino

    def enter(self) -> None:
        """Move this process there."""
        for fd, flag in ((self.net_fd, NEWNET), (self.uts_fd, NEWUTS)):
            if _libc().setns(fd, flag) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"setns to {_KINDS[flag]}: {os.strerror(number)}")

    @contextmanager
    def inside(self, home: Place) -> Iterator[None]:
        """Be there for a while, then at `home` again."""
        self.enter()
        try:
            yield
        finally:
            home.enter()


def _open(kind: str) -> int:
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def _libc() -> ctypes.CDLL:
    # os.unshare and os.setns come with Python 3.12.
    return ctypes.CDLL(None, use_errno=True)
