"""A bound on how often one kind of line is logged, so that a flood can't fill a disk.

A token bucket: `burst` lines at once, `rate_per_s` in the long run. Lines
left out are counted, and the next line that passes says how many there were.
"""

from __future__ import annotations


class LogLimit:
    """Decides about one line at a time; `now` is monotonic seconds."""

    def __init__(self, rate_per_s: float = 5.0, burst: int = 50) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._credit = float(burst)
        self._last: float | None = None
        self._left_out = 0

    def allow(self, now: float) -> int | None:
        """None: leave this line out. A number: log it; so many were left out before it."""
        if self._last is not None:
            earned = max(0.0, now - self._last) * self._rate_per_s
            self._credit = min(self._burst, self._credit + earned)
        self._last = now
        if self._credit < 1:
            self._left_out += 1
            return None
        self._credit -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
