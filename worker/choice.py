"""What `--engine auto` found best on this machine, and the file that remembers it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from wire.card import Card
from worker import machine
from worker.compiled import ingredients, key_of
from worker.engine import EngineConfig, Precision

RULES_VERSION = 3
"""Rises when the same measurements would lead to another choice."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One arrangement, measured: images a second, and agreement with fp32 from 0 to 1."""

    engine: str
    precision: Precision
    threads: int
    lanes: int
    batch: int
    rate_per_s: float
    agreement: float

    def config(self, cache: Path, samples: Path | None) -> EngineConfig:
        """How to make the engine of this arrangement."""
        return EngineConfig(cache, self.threads, self.batch, self.precision, self.lanes, samples)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What may be chosen from: `precisions` in the order in which to try them."""

    kinds: list[tuple[str, Precision]]
    threads: int
    batch_max: int


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The best arrangement, and all that were measured."""

    best: Trial
    trials: list[Trial]


def choice_key(card: Card, wish: Wish) -> str:
    """Differs wherever the choice might: processor, versions, weights, bounds."""
    about: dict[str, Any] = {
        "rules": RULES_VERSION,
        "cpu": machine.cpu_model(),
        "cores": machine.cores(),
        "cuda": machine.has_cuda(),
        "wish": msgspec.to_builtins(wish),
        **ingredients(card, "any"),
    }
    return key_of(about)


def recall(path: Path) -> Choice | None:
    """The choice in this file; None if there is none, or it can't be read."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=Choice)
    return None


def remember(path: Path, choice: Choice) -> None:
    """Write the choice; whoever reads meanwhile sees the old file or the new one."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(choice)) + b"\n")
    temporary.replace(path)
