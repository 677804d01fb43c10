"""How long a job waits before its next attempt: exponential, with full jitter.

Full jitter (a uniform draw between zero and the exponential bound) spreads
retries best of the usual variants: Brooker, "Exponential Backoff And Jitter",
AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random

_DOUBLINGS_MAX = 62


def backoff_s(attempts: int, base_s: float, cap_s: float, rng: random.Random) -> float:
    """Seconds to wait after `attempts` (at least 1) attempts have failed."""
    doublings = min(attempts - 1, _DOUBLINGS_MAX)
    return rng.uniform(0.0, min(cap_s, base_s * 2.0**doublings))
