"""A stable name for a worker that was given none: `HOST-1`, `HOST-2`, and so on.

The lowest number that no running worker of this machine holds. A file lock in
the cache folder holds it, which the kernel lets go when the process ends,
however it ends: a worker that is started again gets its old name back.
"""

from __future__ import annotations

import fcntl
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wire.errors import EnvironmentFault

WORKERS_MAX = 1024
_HOST_CHARS_MAX = 100


@dataclass(frozen=True, slots=True)
class ClaimedName:
    """A name, held as long as `lock` is open."""

    name: str
    lock: IO[bytes]


def claim_name(folder: Path, host: str | None = None) -> ClaimedName:
    """Take the first free name. Raises `EnvironmentFault` if the folder can't be written."""
    host = _plain(host or socket.gethostname())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(1, WORKERS_MAX + 1):
            lock = _try_lock(folder / f"{host}-{index}.lock")
            if lock is not None:
                return ClaimedName(f"{host}-{index}", lock)
    except OSError as error:
        raise EnvironmentFault(
            "cache_unwritable",
            f"can't write to {folder} ({error}): give --name NAME, or another place with --cache",
        ) from error
    raise EnvironmentFault(
        "no_free_name", f"{WORKERS_MAX} workers run here already: give this one a --name"
    )


def _plain(host: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", host)[:_HOST_CHARS_MAX].strip("-.") or "worker"


def _try_lock(path: Path) -> IO[bytes] | None:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
