"""Runs a command and ends all that it started, however the caller itself is ended.

    python -m tests.bench.keeper COMMAND …

Servers under a benchmark start further processes in sessions of their own, which
nothing ends when the benchmark is killed. So a process stands between: it holds a pipe
to the caller, whose end it sees even after SIGKILL, and is the one to which the
kernel gives every orphan below it (`PR_SET_CHILD_SUBREAPER`), so that none escapes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 2.0
KEPT = "LOOKOUT_BENCH_KEPT"
"""Set in the environment of what runs below a keeper."""


def run_kept(command: Sequence[str]) -> int:
    """Exit status of `command`, run below a keeper."""
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.keeper", *command], stdin=subprocess.PIPE
    )
    assert keeper.stdin is not None
    while True:
        # Ctrl-C reaches the whole group: the command unwinds, and the keeper ends after it.
        with contextlib.suppress(KeyboardInterrupt):
            return keeper.wait()


def is_kept() -> bool:
    """Whether this process runs below a keeper."""
    return KEPT in os.environ


def main(command: Sequence[str]) -> int:
    """The keeper's side."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _end_all(143))
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, KEPT: "1"},
        preexec_fn=lambda: _prepare(libc),
    )
    threading.Thread(target=_end_with_caller, daemon=True).start()
    status = child.wait()
    _end_all(status if status >= 0 else 128 - status)
    return status


def _prepare(libc: ctypes.CDLL) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_with_caller() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the caller is gone
    _end_all(143)


def _end_all(status: int) -> None:
    """Ask all descendants to end, then make them; orphans are descendants of this process."""
    deadline_s = time.monotonic() + GRACE_S
    asked: set[int] = set()
    while below := psutil.Process().children(recursive=True):
        for process in below:
            with contextlib.suppress(psutil.Error):
                if time.monotonic() > deadline_s:
                    process.kill()
                elif process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
        # Also reaps those that the kernel gave to this process.
        psutil.wait_procs(below, timeout=0.1)
        _reap()
    os._exit(status)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
