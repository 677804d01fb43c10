"""What runs the network: one interface, several implementations.

Owns the contract of an engine, its capabilities on this machine, and how one is
made by name. Each implementation lives in a module of its own, imported only when
it is wanted: importing torch takes seconds and 200 MB.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wire.card import Card
from wire.errors import EnvironmentFault
from worker import machine

AUTO = "auto"
TORCH = "torch"
OPENVINO = "openvino"
ENGINES = (TORCH, OPENVINO)
ENGINE_MISSING = "engine_missing"
"""Code of the fault where an engine isn't installed."""


class Precision(enum.StrEnum):
    """In what the network computes; weights, pixels and logits are the same in all."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How an engine shall run.

    `lanes` forward passes may be under way at once, each with `threads` threads;
    `batch_max` is the largest batch that `infer` will see. Compiled models are
    kept below `cache`; `samples` is a folder of images of the user's own, which
    `int8` is calibrated with.
    """

    cache: Path
    threads: int
    batch_max: int
    precision: Precision = Precision.FP32
    lanes: int = 1
    samples: Path | None = None
    in_child: bool = True
    """Torch, where it is needed only to convert a model, runs in a process of its own."""


class Engine(Protocol):
    """Loads one model and answers batches of images.

    `config` is what it was made with. Held by one contract suite:
    `tests/unit/worker/test_engine_contract.py`.
    """

    @property
    def config(self) -> EngineConfig: ...

    def load(self, card: Card, weights: Path) -> None:
        """Bring the model of `card` into memory.

        Raises `EnvironmentFault` where weights and card don't fit each other
        or the machine.
        """

    def warm_up(self) -> None:
        """Run what is slow the first time, in every lane and for batches of every size."""

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 [n, classes] of images uint8 [n, h, w, 3], n from 1 to `batch_max`.

        Scales and normalises as the card says. May be called by as many threads at
        once as there are lanes; further ones wait.
        """

    def describe(self) -> str:
        """Name, version, device, precision and threads in one short line."""

    def close(self) -> None:
        """Let go of the model; nothing may be called after it."""


def capabilities(name: str) -> tuple[Precision, ...]:
    """Precisions in which this engine gains something on this machine, the exact one first."""
    faster = (Precision.BF16,) if machine.has_bf16() else ()
    if name == OPENVINO:
        return (Precision.FP32, *faster, Precision.INT8)
    return (Precision.FP32, *faster, *((Precision.FP16,) if machine.has_cuda() else ()))


def make_engine(name: str, config: EngineConfig) -> Engine:
    """Make the engine of that name, without a model in it yet.

    Raises `EnvironmentFault` if this installation or machine doesn't have it.
    """
    if name not in ENGINES:
        raise EnvironmentFault(
            "unknown_engine", f"there is no engine {name!r}: choose from {', '.join(ENGINES)}"
        )
    able = capabilities(name)
    if config.precision not in able:
        raise EnvironmentFault(
            "precision_unsupported",
            f"engine {name} has no fast {config.precision} on this machine: choose from"
            f" {', '.join(able)}, or another engine",
        )
    try:
        return _make(name, config)
    except ImportError as error:
        raise EnvironmentFault(
            ENGINE_MISSING,
            f"engine {name} can't be imported here ({error}): install lookout[worker]",
        ) from error


def shareable(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same images in memory that torch and OpenVINO use as it is; copied only if need be.

    Both refuse memory that can't be written, though they only read it.
    """
    fits = batch.flags.c_contiguous and batch.flags.writeable
    return batch if fits else np.array(batch, order="C")


def _make(name: str, config: EngineConfig) -> Engine:
    if name == OPENVINO:
        from worker.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(config)
    from worker.torch_engine import TorchEngine

    return TorchEngine(config)
