"""A training run on disk: resumable, ended early when it stops improving.

The run folder holds `settings.json`, `checkpoint.pt` (everything to continue
from, written anew after each epoch), `best.pt` (the averaged weights that did
best on the held-out part) and `history.json`. Each file is replaced atomically,
the checkpoint last: it is what makes an epoch count as done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from wire.errors import EnvironmentFault
from worker.statedict import replacing
from worker.train.decoded import Decoded
from worker.train.loop import EpochResult, Trainer


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a run cannot change on the way. `data` is the print of both parts' image lists."""

    architecture: str
    classes: tuple[str, ...]
    data: str


class RunFolder:
    """The files of one run under `path`."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self.best = path / "best.pt"
        self.settings = path / "settings.json"
        self._history = path / "history.json"

    def spill(self, part: str) -> Path:
        """Where pixels of a part go that do not fit in RAM."""
        return self.path / f"decoded-{part}.bin"

    def history(self) -> list[EpochResult]:
        """Results of the finished epochs, oldest first."""
        if not self._history.exists():
            return []
        return msgspec.json.decode(self._history.read_bytes(), type=list[EpochResult])

    def save_history(self, history: list[EpochResult]) -> None:
        """Store what `history` returns."""
        save_json(self._history, history)


class Run:
    """Trains epoch by epoch, storing a checkpoint after each."""

    def __init__(self, trainer: Trainer, folder: RunFolder, identity: Identity) -> None:
        self.trainer = trainer
        self.folder = folder
        self.identity = identity
        self.history: list[EpochResult] = []

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if it has one.

        Raises:
            EnvironmentFault: it belongs to other data, classes or another architecture.
        """
        if not self.folder.checkpoint.exists():
            return False
        state = load_state(self.folder.checkpoint)
        self._check(msgspec.convert(state.pop("identity"), Identity))
        self.trainer.restore(state)
        self.history = self.folder.history()[: self.trainer.epoch]
        return True

    def train(
        self,
        train: Decoded,
        val: Decoded,
        on_step: Callable[[float, float], None],
        on_epoch: Callable[[EpochResult], None],
    ) -> None:
        """Train until the schedule's end, or until `patience_epochs` bring no improvement."""
        save_json(self.folder.settings, self.trainer.settings)
        while not self.trainer.finished and not self.exhausted:
            result = self.trainer.run_epoch(train, val, on_step)
            self.history.append(result)
            self._store(result)
            on_epoch(result)

    @property
    def best_epoch(self) -> EpochResult | None:
        """The epoch with the highest held-out accuracy; of equals the lowest loss, the earliest."""
        return max(self.history, key=lambda r: (r.val_accuracy, -r.val_loss), default=None)

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience_epochs` epochs brought no better one."""
        best, patience = self.best_epoch, self.trainer.settings.patience_epochs
        return bool(best and patience and self.trainer.epoch - best.epoch >= patience)

    def _store(self, result: EpochResult) -> None:
        if self.best_epoch == result:
            save_state(self.folder.best, self.trainer.average.model.state_dict())
        self.folder.save_history(self.history)
        identity = msgspec.to_builtins(self.identity)
        save_state(self.folder.checkpoint, {**self.trainer.state(), "identity": identity})

    def _check(self, stored: Identity) -> None:
        """A changed data set would move held-out images into training."""
        for key in Identity.__struct_fields__:
            if getattr(stored, key) != getattr(self.identity, key):
                raise EnvironmentFault(
                    "other_run",
                    f"{self.folder.path} holds a run with another {key}"
                    f" ({getattr(stored, key)}, now {getattr(self.identity, key)});"
                    " give another --run folder, or delete this one to start over",
                )


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Store a `weights_only`-loadable state atomically."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Load what `save_state` stored, on the CPU."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def save_json(path: Path, value: object) -> None:
    """Store a value that msgspec can encode as indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
