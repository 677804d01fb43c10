"""From replicates to intervals: BCa bootstrap, and the ratio of two runs.

Pure; the methods are scipy's. A replicate is one sample: images of one replicate
share its weather and are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from experiments.errors import Unlike
from experiments.seeds import Dimension, stream

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 4_999
SAME_RATIO: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` replicates and where the true one lies with 95 % confidence.

    `low` and `high` are NaN with fewer than 2 replicates: one number has no spread.
    """

    mean: float
    low: float
    high: float
    n: int

    def overlaps(self, other: Interval) -> bool:
        """True if the two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of B's mean to A's, with the interval of the ratio over pairs of replicates."""

    ratio: float
    low: float
    high: float
    n: int

    @property
    def verdict(self) -> str:
        """What may be said of it."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "no verdict: too few replicates, or nothing to divide by"
        if self.low > 1:
            return "B is higher"
        if self.high < 1:
            return "B is lower"
        return "no difference shown"


def interval(values: Sequence[float], seed: int, name: str = "") -> Interval:
    """Mean and its bootstrap interval (BCa: Efron, "Better Bootstrap Confidence Intervals",
    JASA 82, 1987); values that are NaN were not measured and are left out."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(np.mean(known))
    if len(known) < 2:
        return Interval(mean, math.nan, math.nan, len(known))
    if min(known) == max(known):
        return Interval(mean, mean, mean, len(known))
    rng = stream(seed, Dimension.BOOTSTRAP, name)
    found = stats.bootstrap(
        (known,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=rng,
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(known))


def ratio(a: Sequence[float], b: Sequence[float], seed: int, name: str = "") -> Ratio:
    """B over A, paired: replicate n of both stands in the same block with the same chance.

    Raises:
        Unlike: they have different numbers of replicates.
    """
    if len(a) != len(b):
        raise Unlike(f"{name or 'runs'}: {len(a)} and {len(b)} replicates: pairs need as many")
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if math.isfinite(x) and math.isfinite(y)]
    below = [x for x, _ in pairs]
    above = [y for _, y in pairs]
    if not pairs or np.mean(below) == 0:
        return Ratio(math.nan, math.nan, math.nan, len(pairs))
    value = float(np.mean(above) / np.mean(below))
    if len(pairs) < 2:
        return Ratio(value, math.nan, math.nan, len(pairs))
    if min(below) > 0 and np.ptp(np.divide(above, below)) < SAME_RATIO:
        # The resamples would not vary, and BCa is undefined.
        return Ratio(value, value, value, len(pairs))
    low, high = _ratio_interval(below, above, stream(seed, Dimension.BOOTSTRAP, "ratio", name))
    return Ratio(value, low, high, len(pairs))


def _ratio_interval(
    below: list[float], above: list[float], rng: np.random.Generator
) -> tuple[float, float]:
    found = stats.bootstrap(
        (above, below),
        lambda y, x, axis=-1: np.mean(y, axis=axis) / np.mean(x, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=rng,
    ).confidence_interval
    return float(found.low), float(found.high)


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0–100), NaN of nothing; numpy's linear interpolation."""
    return float(np.percentile(values, q)) if len(values) else math.nan
