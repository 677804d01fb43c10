"""A training run on disk: resumable, ended early when it stops improving.

The run folder holds `settings.json`, `checkpoint.pt` (everything to continue
from, written anew after each epoch), `best.pt` (the averaged weights that did
best on the held-out part) and `history.json`. Each file is replaced atomically.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from wire.errors import EnvironmentFault
from worker.train.folder import Decoded
from worker.train.loop import EpochResult, Trainer


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Store a `weights_only`-loadable state atomically."""
    write_atomic(path, lambda temporary: torch.save(state, temporary))


def load_state(path: Path) -> dict[str, Any]:
    """Load what `save_state` stored, on the CPU."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def save_json(path: Path, value: Any) -> None:
    """Store a value that msgspec can encode as indented JSON, atomically."""
    encoded = msgspec.json.format(msgspec.json.encode(value), indent=2)
    write_atomic(path, lambda temporary: _write_bytes(temporary, encoded + b"\n"))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


class RunFolder:
    """The files of one run under `path`."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self.best = path / "best.pt"
        self.settings = path / "settings.json"
        self.history_file = path / "history.json"
        self.spill = path / "decoded"

    def history(self) -> list[EpochResult]:
        """Results of the finished epochs, oldest first."""
        if not self.history_file.exists():
            return []
        return msgspec.json.decode(self.history_file.read_bytes(), type=list[EpochResult])


class Run:
    """Trains epoch by epoch, storing a checkpoint after each."""

    def __init__(self, trainer: Trainer, folder: RunFolder, classes: tuple[str, ...]) -> None:
        self.trainer = trainer
        self.folder = folder
        self.classes = list(classes)
        self.history: list[EpochResult] = []

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if it has one.

        Raises:
            EnvironmentFault: the checkpoint belongs to other classes or another architecture.
        """
        if not self.folder.checkpoint.exists():
            return False
        state = load_state(self.folder.checkpoint)
        mine = {"classes": self.classes, "architecture": self.trainer.settings.architecture}
        for key, value in mine.items():
            if state[key] != value:
                raise EnvironmentFault(
                    "other_run",
                    f"{self.folder.checkpoint} was trained with {key} {state[key]}, not {value};"
                    " give another --run folder",
                )
        self.trainer.restore(state)
        self.history = self.folder.history()[: self.trainer.epoch]
        return True

    def train(
        self,
        data: tuple[Decoded, Decoded],
        on_step: Callable[[float, float], None],
        on_epoch: Callable[[EpochResult], None],
    ) -> None:
        """Train until the schedule's end or until `patience_epochs` bring no improvement."""
        save_json(self.folder.settings, self.trainer.settings)
        while not self.trainer.finished and not self.exhausted:
            result = self.trainer.run_epoch(*data, on_step)
            self.history.append(result)
            self._store(result)
            on_epoch(result)

    @property
    def best_epoch(self) -> EpochResult | None:
        """The epoch with the highest held-out accuracy; of equals the latest."""
        return max(self.history, key=lambda r: (r.val_accuracy, r.epoch), default=None)

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience_epochs` epochs brought no better one."""
        best, patience = self.best_epoch, self.trainer.settings.patience_epochs
        return bool(best and patience and self.trainer.epoch - best.epoch >= patience)

    def _store(self, result: EpochResult) -> None:
        """The checkpoint comes last: it is what makes the epoch count as done."""
        if self.best_epoch == result:
            save_state(self.folder.best, self.trainer.average.model.state_dict())
        save_json(self.folder.history_file, self.history)
        identity = {"classes": self.classes, "architecture": self.trainer.settings.architecture}
        save_state(self.folder.checkpoint, self.trainer.state() | identity)
