"""What runs the network: one interface, several implementations.

Owns the contract of an engine and how one is chosen by name. An engine is
used from one thread at a time, and `infer` mostly from the same one. Each
implementation lives in a module of its own, imported only when it is wanted:
importing torch takes a second and 200 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wire.card import Card
from wire.errors import EnvironmentFault

ENGINES = ("auto", "torch")
"""What `--engine` takes; `auto` picks for this machine."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`threads` for one forward pass, and the largest batch that `infer` will see."""

    threads: int
    batch_max: int


class Engine(Protocol):
    """Loads one model and answers batches of prepared images.

    Held by one contract suite: `tests/unit/worker/test_engine_contract.py`.
    """

    def load(self, card: Card, weights: Path) -> None:
        """Bring the model of `card` into memory.

        Raises `EnvironmentFault` where weights and card don't fit each other
        or the machine.
        """

    def warm_up(self) -> None:
        """Run what is slow the first time, for batches of one and of the largest size."""

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [n, classes] of `batch` [n, 3, h, w], float32 both, n from 1 to `batch_max`."""

    def describe(self) -> str:
        """Name, version, device, precision and threads in one short line."""


def make_engine(name: str, config: EngineConfig) -> Engine:
    """Make the engine of that name, without a model in it yet.

    Raises `EnvironmentFault` if this installation doesn't have it.
    """
    if name not in ENGINES:
        raise EnvironmentFault(
            "unknown_engine", f"there is no engine {name!r}: choose from {', '.join(ENGINES)}"
        )
    try:
        from worker.torch_engine import TorchEngine
    except ImportError as error:
        raise EnvironmentFault(
            "engine_missing",
            f"torch can't be imported here ({error}): install lookout[worker]",
        ) from error
    return TorchEngine(config)
