"""Where labs of this user are written down: one folder each, gone with the lab.

It holds the record (`lab.json`), the keeper's socket and log, and the hosts file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from netem.errors import NetemError, Refused
from netem.lab.messages import Record

RECORD: Final = "lab.json"
SOCKET: Final = "keeper.sock"
LOG: Final = "keeper.log"
HOSTS: Final = "hosts"


def root() -> Path:
    """The folder above all labs, made if it is not there; nobody else may look into it.

    Raises:
        Refused: somebody else owns it.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() == 0:
        path = Path("/run/lookout-labs")
    elif runtime:
        path = Path(runtime) / "lookout-labs"
    else:
        path = Path(f"/tmp/lookout-labs-{os.geteuid()}")  # noqa: S108 — its owner is checked
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise Refused("folder", f"{path} is not this user's alone: remove it, or chmod 700 it")
    return path


def create(name: str) -> Path:
    """The folder of a new lab.

    Raises:
        Refused: there is a lab of that name, or what a crash left of one.
    """
    path = root() / name
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        raise Refused(
            "exists", f"there is a lab {name} already: `netem lab down {name}` ends it"
        ) from None
    return path


def write(path: Path, record: Record) -> None:
    """Write a lab down, in one step."""
    draft = path / f"{RECORD}.new"
    draft.write_bytes(msgspec.json.encode(record))
    draft.replace(path / RECORD)


def read(name: str) -> Record:
    """What is written of a lab.

    Raises:
        NetemError: there is no such lab, or it never came up.
    """
    path = root() / name
    try:
        return msgspec.json.decode((path / RECORD).read_bytes(), type=Record)
    except FileNotFoundError:
        known = ", ".join(names()) or "none"
        raise NetemError(
            "no_lab", f"there is no lab {name} here; there are: {known}. `netem lab up` makes one"
        ) from None


def names() -> list[str]:
    """Every lab of this user, those included of which only the folder is left."""
    return sorted(path.name for path in _folders())


def remove(path: Path) -> None:
    """Forget a lab; one that is forgotten already is no error."""
    shutil.rmtree(path, ignore_errors=True)


def _folders() -> Iterator[Path]:
    return (path for path in root().iterdir() if path.is_dir())
