"""How long to wait before the next try: exponential with full jitter.

Full jitter (a uniform draw from zero to the bound) spreads a herd of workers
that lost the same master better than a jitter around the bound does: Marc
Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

_DOUBLINGS_MAX = 32


@dataclass(slots=True)
class Backoff:
    """Counts failures in a row; the bound doubles with each from `base_s` to `cap_s`."""

    base_s: float
    cap_s: float
    failures: int = 0

    def next_delay_s(self, rng: random.Random, cap_s: float = math.inf) -> float:
        """Draw the wait before the next try, at most `cap_s`, and count one failure."""
        bound_s = min(self.cap_s, cap_s, self.base_s * 2 ** min(self.failures, _DOUBLINGS_MAX))
        self.failures += 1
        return rng.uniform(0.0, bound_s)

    def reset(self) -> None:
        """A try succeeded: the next wait is short again."""
        self.failures = 0
