"""The processes of a lab: those in its network namespaces, and no others.

Never by name: a process is known by the namespace that it is in, and killed
through a pidfd, so that a recycled id can't be hit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from netem.errors import NetemError

MARK: Final = "LOOKOUT_LAB"
"""Environment variable of every process that was started in a lab; its value is the lab's."""
END_TIMEOUT_S: Final = 5.0
ROUNDS_MAX: Final = 100
"""A process that is killed may have started others a moment before."""


def inside(net_ids: Collection[int]) -> list[int]:
    """Ids of the processes whose network namespace is one of `net_ids`, this one excepted."""
    return [pid for pid in _all() if pid != os.getpid() and _net_id(pid) in net_ids]


def marked(pid: int, mark: str) -> bool:
    """True if the process was started in the lab whose mark this is."""
    wanted = f"{MARK}={mark}".encode()
    with contextlib.suppress(OSError):
        return wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def kill_inside(
    net_ids: Collection[int], *, but: Callable[[int], bool] = lambda pid: False
) -> list[int]:
    """Kill every process in these namespaces except where `but`, and wait until each ended.

    Returns:
        Ids of those that were killed.

    Raises:
        NetemError: one did not end, or they multiply faster than they die.
    """
    killed: list[int] = []
    deadline_s = time.monotonic() + END_TIMEOUT_S
    for _ in range(ROUNDS_MAX):
        victims = [pid for pid in inside(net_ids) if not but(pid)]
        if not victims:
            return killed
        for pid in victims:
            if _kill(pid, net_ids, deadline_s - time.monotonic()):
                killed.append(pid)
    raise NetemError("stuck", f"processes {inside(net_ids)} of a lab did not end: try again")


def _kill(pid: int, net_ids: Collection[int], patience_s: float) -> bool:
    with contextlib.suppress(ProcessLookupError), _pidfd(pid) as pidfd:
        # Only now is it certain that the id is still that of the process that was found.
        if _net_id(pid) not in net_ids:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], max(patience_s, 0.0))[0]:
            raise NetemError("stuck", f"process {pid} of a lab survives SIGKILL: try again")
        return True
    return False


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _net_id(pid: int) -> int | None:
    # A zombie has no namespaces any more, and other users' processes are not ours to see.
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116
    return None


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since boot: with its id, who it is.

    Raises:
        ProcessLookupError: there is none with this id, or one that has ended and waits for
            its parent to notice; some containers' first process never does.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    # The name may hold spaces and parentheses; what follows the last one doesn't (proc(5)).
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def boot_id() -> str:
    """Which start of this machine it is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
