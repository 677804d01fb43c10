"""`python -m worker.calibrate`: which engine is fastest here, measured in a few seconds.

Runs in a process of its own: torch is needed to compare with, an arrangement
that crashes on this processor takes no worker with it, and what it loaded goes
with it. Every engine and precision is held against float32 on the same pixels;
one that strays is not taken however fast it is. Whatever else runs here can only
add to times, so the best of several rounds counts, and a single thread on the CPU is
judged by the processor's time, which others don't touch.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from wire.card import Card
from wire.errors import EnvironmentFault
from worker import child, machine
from worker.agreement import AGREEMENT_MIN, agreement
from worker.choice import Choice, Trial, Wish
from worker.engine import ENGINE_MISSING, TORCH, Engine, EngineConfig, make_engine
from worker.scenes import dead_leaves

TIMEOUT_S = 600.0
SCENES = 16
ROUNDS = 3
HOPELESS = 1.1
"""So much slower than the best in its first round, an arrangement gets no further one."""
BUDGET_S = 6.0
"""After this long no further arrangement is begun; the likely fastest come first.

The first engine is tried in all its precisions all the same: bfloat16 is not the faster one
on every processor that has it. Measured: OpenVINO on a Xeon with AVX-512 BF16 and without
AMX takes 36 ms of processor time an image in bf16 and 24 to 27 ms in fp32."""
WORTH = 1.02
"""Larger batches and more lanes are taken only for so much more: they cost latency."""


def choose_in_child(card: Card, weights: Path, wish: Wish, cache: Path) -> Choice:
    """The fastest arrangement that agrees with fp32. Raises `EnvironmentFault`."""
    request = {
        "card": msgspec.to_builtins(card),
        "weights": str(weights),
        "wish": msgspec.to_builtins(wish),
        "cache": str(cache),
    }
    return msgspec.convert(child.run("worker.calibrate", request, TIMEOUT_S), Choice)


def choose(card: Card, weights: Path, wish: Wish, cache: Path) -> Choice:
    """As `choose_in_child`, here."""
    scenes = dead_leaves(SCENES, card.preprocessing.crop_px, np.random.default_rng(0))
    base = EngineConfig(cache, wish.threads, wish.batch_max, in_child=False)
    exact = _load(TORCH, base, card, weights)
    expected, exact_s = _timed_logits(exact, scenes, wish.batch_max)
    exact.close()
    began_s = time.monotonic()
    trials: list[Trial] = []
    missing: dict[str, EnvironmentFault] = {}
    for name, precision in wish.kinds:
        if _suffices(trials, name) and time.monotonic() - began_s > BUDGET_S:
            break
        if name in missing:
            continue
        best_s = min((1.0 / trial.rate_per_s for trial in _agreeing(trials)), default=math.inf)
        if (name, precision) == (TORCH, base.precision) and exact_s > HOPELESS * best_s:
            trials.append(_out_of_reach(base, exact_s))
            continue
        try:
            engine = _load(name, replace(base, precision=precision), card, weights)
        except EnvironmentFault as fault:
            if fault.code != ENGINE_MISSING:
                raise
            # `auto` means what is there: an engine that isn't installed is no candidate.
            missing[name] = fault
            continue
        trials += _measure(engine, name, scenes, expected, best_s)
        engine.close()
    if not trials:
        raise next(iter(missing.values()))
    best = best_of(trials)
    if wish.threads > 1:
        lanes = replace(
            base, precision=best.precision, threads=1, lanes=wish.threads, batch_max=best.batch
        )
        trials += _try_lanes(best, lanes, card, weights, scenes)
        best = best_of(trials)
    return Choice(best=best, trials=trials)


def _out_of_reach(config: EngineConfig, image_s: float) -> Trial:
    """What others are held against was slower in its first round: it isn't loaded again."""
    return Trial(
        engine=TORCH,
        precision=config.precision,
        threads=config.threads,
        lanes=1,
        batch=config.batch_max,
        rate_per_s=1.0 / image_s,
        agreement=1.0,
    )


def _suffices(trials: list[Trial], name: str) -> bool:
    """Whether another engine than `name` is done, and there is something to take."""
    return bool(_agreeing(trials)) and any(trial.engine != name for trial in trials)


def _agreeing(trials: list[Trial]) -> list[Trial]:
    """Those that give the answers of fp32."""
    return [trial for trial in trials if trial.agreement >= AGREEMENT_MIN]


def best_of(trials: list[Trial]) -> Trial:
    """The fastest that agrees with fp32, with the smallest batch and fewest lanes that do.

    Raises `EnvironmentFault` if none agrees.
    """
    agreeing = _agreeing(trials)
    if not agreeing:
        raise EnvironmentFault(
            "no_engine_agrees",
            "no engine here gives the answers of fp32 with this model: choose one by --engine"
            " torch --precision fp32",
        )
    rate = max(trial.rate_per_s for trial in agreeing)
    good = [trial for trial in agreeing if trial.rate_per_s * WORTH >= rate]
    return min(good, key=lambda trial: (trial.lanes, trial.batch, -trial.rate_per_s))


def _measure(
    engine: Engine,
    name: str,
    scenes: NDArray[np.uint8],
    expected: NDArray[np.float32],
    best_s: float,
) -> list[Trial]:
    config = engine.config
    agrees = agreement(expected, _logits(engine, scenes, config.batch_max))
    return [
        Trial(
            engine=name,
            precision=config.precision,
            threads=config.threads,
            lanes=1,
            batch=batch,
            rate_per_s=1.0 / _best_image_s(engine, scenes, batch, best_s),
            agreement=agrees,
        )
        for batch in sorted({1, config.batch_max})
    ]


def _best_image_s(engine: Engine, scenes: NDArray[np.uint8], batch: int, best_s: float) -> float:
    """The best of several rounds; of one, where that shows that `best_s` is out of reach."""
    first_s = _image_s(engine, scenes, batch)
    if first_s > HOPELESS * best_s:
        return first_s
    return min(first_s, *(_image_s(engine, scenes, batch) for _ in range(ROUNDS - 1)))


def _try_lanes(
    best: Trial, config: EngineConfig, card: Card, weights: Path, scenes: NDArray[np.uint8]
) -> list[Trial]:
    engine = _load(best.engine, config, card, weights)
    image_s = min(_image_s_in_lanes(engine, scenes, config) for _ in range(ROUNDS))
    engine.close()
    return [msgspec.structs.replace(best, threads=1, lanes=config.lanes, rate_per_s=1.0 / image_s)]


def _load(name: str, config: EngineConfig, card: Card, weights: Path) -> Engine:
    engine = make_engine(name, config)
    engine.load(card, weights)
    engine.warm_up()
    return engine


def _logits(engine: Engine, scenes: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    parts = [engine.infer(scenes[n : n + batch]) for n in range(0, len(scenes), batch)]
    return np.concatenate(parts)


def _image_s(engine: Engine, scenes: NDArray[np.uint8], batch: int) -> float:
    """Seconds an image, one forward pass after the other."""
    count = min(len(scenes), math.ceil(len(scenes) / 2 / batch) * batch)
    return _timed_logits(engine, scenes[:count], batch)[1]


def _timed_logits(
    engine: Engine, scenes: NDArray[np.uint8], batch: int
) -> tuple[NDArray[np.float32], float]:
    """Logits, and seconds an image: the processor's where it is one thread, else the wall's."""
    is_single = engine.config.threads == 1 and not machine.has_cuda()
    clock = time.process_time if is_single else time.perf_counter
    began_s = clock()
    logits = _logits(engine, scenes, batch)
    return logits, (clock() - began_s) / len(scenes)


def _image_s_in_lanes(engine: Engine, scenes: NDArray[np.uint8], config: EngineConfig) -> float:
    """Seconds an image, with as many forward passes at once as there are lanes."""
    threads = [
        threading.Thread(target=_logits, args=(engine, scenes, config.batch_max))
        for _ in range(config.lanes)
    ]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began_s) / (len(scenes) * config.lanes)


def _work(request: dict[str, Any]) -> dict[str, Any]:
    card, wish = msgspec.convert(request["card"], Card), msgspec.convert(request["wish"], Wish)
    choice = choose(card, Path(request["weights"]), wish, Path(request["cache"]))
    answer: dict[str, Any] = msgspec.to_builtins(choice)
    return answer


if __name__ == "__main__":
    child.serve(_work)
