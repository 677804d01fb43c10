"""From `--engine` and `--precision` to an engine that is loaded and warm.

What is named is made. What is left open is measured once (`worker.calibrate`, in
a child process) and remembered; workers of one machine take turns, so that they
neither disturb each other's measurement nor repeat it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from wire.card import Card
from worker.calibrate import choose_in_child
from worker.choice import Choice, Trial, Wish, choice_key, recall, remember
from worker.compiled import locked
from worker.engine import (
    AUTO,
    ENGINES,
    OPENVINO,
    Engine,
    EngineConfig,
    Precision,
    capabilities,
    make_engine,
)
from worker.logs import event

log = logging.getLogger("lookout.worker.selection")
CHOICES = "choices"


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """What the flags say: `engine` and `precision` may be `auto`."""

    engine: str
    precision: str
    threads: int
    batch_max: int
    cache: Path
    samples: Path | None = None


class Selection:
    """Makes the engine for a model. Raises `EnvironmentFault` where there can be none."""

    def __init__(self, config: SelectionConfig) -> None:
        self._config = config

    def prepare(self, card: Card, weights: Path) -> Engine:
        """An engine with this model in it, warm."""
        kinds = allowed(self._config.engine, self._config.precision)
        name, precision = kinds[0]
        if len(kinds) == 1:
            config = self._named(precision)
        else:
            best = self._chosen(card, weights, kinds)
            name, config = best.engine, best.config(self._config.cache, self._config.samples)
        engine = make_engine(name, config)
        engine.load(card, weights)
        engine.warm_up()
        return engine

    def _named(self, precision: Precision) -> EngineConfig:
        config = self._config
        return EngineConfig(
            config.cache, config.threads, config.batch_max, precision, samples=config.samples
        )

    def _chosen(self, card: Card, weights: Path, kinds: list[tuple[str, Precision]]) -> Trial:
        wish = Wish(kinds=kinds, threads=self._config.threads, batch_max=self._config.batch_max)
        folder = self._config.cache / CHOICES
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{choice_key(card, wish)}.json"
        with locked(path.with_suffix(".lock")):
            known = recall(path)
            choice = known or choose_in_child(card, weights, wish, self._config.cache)
            if known is None:
                remember(path, choice)
                _log(choice)
        return choice.best


def allowed(engine: str, precision: str) -> list[tuple[str, Precision]]:
    """Pairs that the flags leave open, the likely fastest first.

    int8 is only taken where it is named: it needs images, and changes answers more.
    """
    if precision == Precision.INT8:
        return [(OPENVINO if engine == AUTO else engine, Precision.INT8)]
    names = (OPENVINO, *(n for n in ENGINES if n != OPENVINO)) if engine == AUTO else (engine,)
    if precision != AUTO and engine != AUTO:
        return [(engine, Precision(precision))]
    return [
        (name, able)
        for name in names
        for able in reversed(capabilities(name))
        if able is not Precision.INT8 and precision in (AUTO, able)
    ]


def _log(choice: Choice) -> None:
    for trial in choice.trials:
        event(
            log,
            logging.INFO,
            "engine_measured",
            engine=trial.engine,
            precision=trial.precision,
            threads=f"{trial.threads}x{trial.lanes}",
            batch=trial.batch,
            images_per_s=round(trial.rate_per_s, 1),
            agreement=trial.agreement,
            taken=trial == choice.best or None,
        )
