"""Whether this process came in over SSH: `sudo` drops the variable that says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "SSH_CONNECTION"
ANCESTORS_MAX: Final = 64


def ssh_connection(proc: Path = Path("/proc")) -> str | None:
    """`CLIENT PORT SERVER PORT` of the session that this process, or one above it, is in.

    An ancestor of another user is readable for root alone, who is also the one that
    changes links; what can't be read says nothing.
    """
    if found := os.environ.get(VARIABLE):
        return found
    pid = os.getppid()
    for _ in range(ANCESTORS_MAX):
        if pid <= 1:
            break
        if found := _variable(proc / str(pid) / "environ"):
            return found
        pid = _parent(proc / str(pid) / "stat")
    return None


def _variable(path: Path) -> str | None:
    """The variable in a process's environment as it was at its start."""
    try:
        entries = path.read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{VARIABLE}=".encode()
    values = (entry[len(prefix) :] for entry in entries if entry.startswith(prefix))
    return next((value.decode("ascii", "replace") for value in values), None)


def _parent(path: Path) -> int:
    """The parent's process id; 0 where it can't be read."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    # The name stands in parentheses and may hold anything, other parentheses too.
    fields = text.rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0
