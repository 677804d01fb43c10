"""The cache of converted models on this machine, shared by its workers.

A folder holds the graph (`model.xml`, `model.bin`) and, below a folder for each
kind of processor, what OpenVINO compiled from it. Its name is a hash of all that
goes in: weights, card, versions, precision, calibration images; `made_of.json`
tells it to people. A folder is filled under a lock beside its place and renamed
when it is whole. The folders used least recently go when there are more than
`FOLDERS_MAX`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from wire.card import Card
from wire.errors import EnvironmentFault
from worker import machine

FOLDERS_MAX = 8
GRAPH_VERSION = 2
"""Rises when the same model is converted to another graph than before."""
MODEL = "model.xml"
_MADE_OF = "made_of.json"


def ingredients(card: Card, precision: str, samples: Path | None = None) -> dict[str, Any]:
    """All that decides what a converted model computes."""
    return {
        "graph_version": GRAPH_VERSION,
        "weights": card.sha256,
        "architecture": card.architecture,
        "classes": len(card.classes),
        "preprocessing": msgspec.to_builtins(card.preprocessing),
        "precision": precision,
        "samples": None if samples is None else _listed(samples),
        "versions": {name: machine.version_of(name) for name in ("openvino", "torch", "nncf")},
    }


def key_of(made_of: dict[str, Any]) -> str:
    """24 hexadecimal digits."""
    text = msgspec.json.encode(made_of, order="sorted")
    return hashlib.sha256(text).hexdigest()[:24]


class CompiledCache:
    """Converted models in one folder. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def obtain(self, made_of: dict[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of this model, filled by `make(folder)` if it isn't there.

        Raises `EnvironmentFault` `cache_unwritable`, and whatever `make` raises.
        """
        key = key_of(made_of)
        place = self._folder / key
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(self._folder / f"{key}.lock"):
                if not (place / MODEL).is_file():
                    self._fill(place, made_of, make)
                os.utime(place)
        except OSError as error:
            raise EnvironmentFault(
                "cache_unwritable",
                f"can't keep models in {self._folder} ({error}): choose another place with --cache",
            ) from error
        return place

    def forget(self, place: Path) -> None:
        """Remove a folder that turned out damaged."""
        shutil.rmtree(place, ignore_errors=True)

    def _fill(self, place: Path, made_of: dict[str, Any], make: Callable[[Path], None]) -> None:
        self.forget(place)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._folder) as name:
            folder = Path(name) / place.name
            folder.mkdir()
            make(folder)
            (folder / _MADE_OF).write_bytes(msgspec.json.format(msgspec.json.encode(made_of)))
            folder.rename(place)
        self._evict()

    def _evict(self) -> None:
        folders = [path for path in self._folder.iterdir() if (path / MODEL).is_file()]
        folders.sort(key=lambda path: path.stat().st_mtime)
        for path in folders[:-FOLDERS_MAX]:
            self.forget(path)


def for_this_processor(place: Path) -> Path:
    """Where OpenVINO keeps what it compiled for this kind of processor."""
    kind = hashlib.sha256(machine.cpu_model().encode()).hexdigest()[:12]
    return place / f"compiled-{kind}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process at the latest."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _listed(samples: Path) -> list[tuple[str, int]]:
    return sorted((path.name, path.stat().st_size) for path in samples.rglob("*") if path.is_file())
