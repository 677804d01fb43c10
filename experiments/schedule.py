"""When images arrive and when what breaks: drawn before the run, from its seed.

Pure. Promises that the same scenario, seed and place give the same schedule, to
the last digit.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from experiments.scenario import Arrivals, Fault, FaultKind, Faults, Load, Scenario
from experiments.seeds import Dimension, stream

ARRIVALS_DIGESTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """One replicate of one point: the unit of chance, and of resuming."""

    point: str
    replicate: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.point}-r{self.replicate}".replace("/", "_").replace(" ", "_")


def blocks(points: Sequence[str], replicates: int, seed: int) -> list[Place]:
    """Every point once a block, in an order of its own per block.

    Whatever drifts during the run (heat, a neighbour on the machine) then meets
    all points alike: randomised blocks, Fisher, "The Design of Experiments", 1935.
    """
    places = []
    for replicate in range(replicates):
        order = stream(seed, Dimension.ORDER, replicate).permutation(len(points))
        places += [Place(points[int(index)], replicate) for index in order]
    return places


def arrivals(load: Load, place: Place, seed: int) -> Iterator[float]:
    """Seconds from the start at which images arrive, without end, for an open loop.

    Raises:
        ValueError: a closed loop has no schedule.
    """
    if load.kind is Arrivals.CLOSED:
        raise ValueError("a closed loop has no arrivals: the next image goes when one ends")
    rng = stream(seed, Dimension.ARRIVALS, place.point, place.replicate)
    per_event = load.burst_images if load.kind is Arrivals.BURSTS else 1
    now_s = 0.0
    while True:
        now_s += float(rng.exponential(per_event / load.rate_per_s))
        yield from (now_s for _ in range(per_event))


def faults(wanted: Faults, workers: int, longest_s: float, place: Place, seed: int) -> list[Fault]:
    """The timeline and what chance adds to it within `longest_s`, by time."""
    rng = stream(seed, Dimension.FAULTS, place.point, place.replicate)
    drawn = [*wanted.timeline, *_poisson(wanted, workers, longest_s, rng)]
    return sorted(drawn, key=lambda fault: (fault.at_s, fault.kind, fault.worker))


def one_death(
    wanted: Faults, workers: int, images: int, place: Place, seed: int
) -> tuple[int, int]:
    """For `failure_rate_per_run`: the worker that dies, and after how many answers; 0, 0 if none.

    A place among the run's images, and not a time: it must fall inside the run.
    """
    rng = stream(seed, Dimension.FAULTS, place.point, place.replicate, "one death")
    dies = rng.random() < wanted.failure_rate_per_run
    worker, after = int(rng.integers(1, workers + 1)), int(rng.integers(0, max(1, images)))
    return (worker, after) if dies else (0, 0)


def digest(scenario: Scenario, place: Place) -> str:
    """SHA-256 of all that is drawn before a replicate: faults, and the first arrivals.

    The digits that count are all of them: two runs with one digest have one schedule.
    """
    wanted, stop, seed = scenario.faults, scenario.stop, scenario.seed
    workers = scenario.cluster.workers
    times: list[float] = []
    if scenario.load.kind is not Arrivals.CLOSED:
        times = list(itertools.islice(arrivals(scenario.load, place, seed), ARRIVALS_DIGESTED))
    drawn = (
        faults(wanted, workers, stop.longest_s, place, seed),
        one_death(wanted, workers, stop.minimum_images, place, seed),
        times,
    )
    return hashlib.sha256(msgspec.json.encode(drawn)).hexdigest()


def _poisson(
    wanted: Faults, workers: int, longest_s: float, rng: np.random.Generator
) -> Iterator[Fault]:
    if not wanted.per_minute or not wanted.kinds:
        return
    now_s = 0.0
    while (now_s := now_s + float(rng.exponential(60.0 / wanted.per_minute))) < longest_s:
        yield Fault(
            at_s=round(now_s, 6),
            kind=FaultKind(wanted.kinds[int(rng.integers(len(wanted.kinds)))]),
            worker=int(rng.integers(1, workers + 1)),
            for_s=round(float(rng.uniform(wanted.shortest_s, wanted.longest_s)), 6),
        )
