"""How fast a worker is, from the times between its results while it was busy."""

from __future__ import annotations

import math
from typing import Final

PRIOR_COMPLETIONS: Final = 0.1
"""How much the prior counts: little, or a slow newcomer looks fast for long."""


class Rate:
    """Jobs per second of busy time, remembering about `memory_s` of it.

    It is the ratio of two sums that fade alike, completions and busy seconds.
    Unlike a mean of single rates it is right for results that come in batches
    (seven at once, then a pause). A newcomer has the rate of its
    prior, which the first measurement all but replaces.
    """

    __slots__ = ("_busy_s", "_completions", "_mark", "_memory_s", "measured", "per_s")

    def __init__(self, prior_per_s: float, memory_s: float) -> None:
        self._completions = PRIOR_COMPLETIONS
        self._busy_s = PRIOR_COMPLETIONS / prior_per_s
        self._memory_s = memory_s
        self._mark = 0.0
        self.measured = False
        self.per_s = prior_per_s

    def begin(self, now: float) -> None:
        """The worker was idle and has work now."""
        self._mark = now

    def age(self, now: float) -> None:
        """Nothing came from the busy worker so far: it is no faster than if a result came now."""
        elapsed_s = max(0.0, now - self._mark)
        kept = math.exp(-elapsed_s / self._memory_s)
        bound_per_s = (self._completions * kept + 1.0) / (self._busy_s * kept + elapsed_s)
        self.per_s = min(self.per_s, bound_per_s)

    def complete(self, now: float) -> None:
        """A result arrived from the busy worker."""
        elapsed_s = max(0.0, now - self._mark)
        kept = math.exp(-elapsed_s / self._memory_s)
        self._busy_s = self._busy_s * kept + elapsed_s
        self._completions = self._completions * kept + 1.0
        self._mark = now
        self.measured = True
        self.per_s = self._completions / max(self._busy_s, 1e-9)
