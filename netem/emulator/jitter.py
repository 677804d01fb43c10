"""The delay of each packet: uniform, or by one of the tables that `tc` gives to `sch_netem`.

The tables are those of iproute2 (`netem/normal.c`, `pareto.c`, `paretonormal.c`),
computed here instead of read from `/usr/lib/tc`, which not every machine has. A
test compares the two where both are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from statistics import NormalDist
from typing import Final

from netem.spec import Distribution, LinkSpec

TABLE_SIZE: Final = 4096
TABLE_UNIT: Final = 8192
"""`NETEM_DIST_SCALE`: a table's entry of this many is one standard deviation."""
TABLE_MAX: Final = 32767
"""Entries are 16 bits wide: nothing is further out than 4 standard deviations."""

Draw = Callable[[], float]
"""A number from 0 to below 1, uniform unless it is correlated."""


def delays_s(spec: LinkSpec, draw: Draw) -> Callable[[], float]:
    """A function that gives the delay of the next packet in seconds; it may be below 0.

    Source: `tabledist` of Linux' `net/sched/sch_netem.c`.
    """
    mean_s, spread_s = spec.delay_ms / 1e3, spec.jitter_ms / 1e3
    if spread_s == 0:
        return lambda: mean_s
    if spec.distribution is Distribution.UNIFORM:
        return lambda: mean_s + spread_s * (2 * draw() - 1)
    deviations = [entry / TABLE_UNIT for entry in table(spec.distribution)]
    return lambda: mean_s + spread_s * deviations[int(draw() * TABLE_SIZE)]


@cache
def table(distribution: Distribution) -> Sequence[int]:
    """The inverse distribution function at 4,096 points, in 1/8,192 standard deviations.

    Raises:
        KeyError: `uniform`, which has no table.
    """
    return _TABLES[distribution]()


def _normal() -> list[int]:
    inverse = NormalDist().inv_cdf
    # The lowest point is at probability 0; iproute2 starts its search at -10, and clips.
    values = (inverse(i / TABLE_SIZE) if i else -10.0 for i in range(TABLE_SIZE))
    return [_entry(value * TABLE_UNIT) for value in values]


def _pareto() -> list[int]:
    """Shape 3, so with a variance and no more; its mean of 1.5 is taken away."""
    points = (65536 - 16 * i for i in range(TABLE_SIZE))
    return [_entry(((65536 / i) ** (1 / 3) - 1.5) * 4 / 3 * TABLE_UNIT) for i in points]


def _paretonormal() -> list[int]:
    """A quarter normal and three quarters Pareto, point by point."""
    pairs = zip(_normal(), _pareto(), strict=True)
    return [_entry((normal + 3 * pareto) / 4) for normal, pareto in pairs]


def _entry(value: float) -> int:
    return round(max(-TABLE_MAX, min(TABLE_MAX, value)))


_TABLES: Final = {
    Distribution.NORMAL: _normal,
    Distribution.PARETO: _pareto,
    Distribution.PARETONORMAL: _paretonormal,
}
