"""Rates over the last seconds, and percentiles over the last values, in bounded memory."""

from __future__ import annotations

from collections import deque

RATE_WINDOW_S = 10
SAMPLES_MAX = 2048


class RateMeter:
    """Events per second over the last `RATE_WINDOW_S` whole seconds."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._bins: deque[list[float]] = deque()

    def add(self, now: float, count: int = 1) -> None:
        """Count events at `now` (monotonic seconds)."""
        second = float(int(now))
        if self._bins and self._bins[-1][0] == second:
            self._bins[-1][1] += count
        else:
            self._bins.append([second, float(count)])
        self._forget(now)

    def per_second(self, now: float) -> float:
        """The smoothed rate; over the time since start while that is shorter."""
        self._forget(now)
        span = min(RATE_WINDOW_S, max(1.0, now - self._started))
        return sum(count for _, count in self._bins) / span

    def _forget(self, now: float) -> None:
        while self._bins and self._bins[0][0] <= now - RATE_WINDOW_S - 1:
            self._bins.popleft()


class Percentiles:
    """The last `SAMPLES_MAX` values."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=SAMPLES_MAX)

    def add(self, value: float) -> None:
        """Remember one value."""
        self._values.append(value)

    def read(self, *quantiles: int) -> dict[str, float]:
        """`{"p50": …}` by the nearest-rank method; empty while there are no values."""
        ordered = sorted(self._values)
        if not ordered:
            return {}
        last = len(ordered) - 1
        return {f"p{q}": round(ordered[min(last, len(ordered) * q // 100)], 3) for q in quantiles}
