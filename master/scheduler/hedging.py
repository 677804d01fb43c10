"""Which leases have become stragglers, worth a second lease on an idle worker.

A lease is a straggler when its age passes `factor` times the 95th percentile
of the last leases' durations (while there are too few, times what its place in
the worker's slots let expect). A lease on a suspect worker is one at once. Tail
tolerance by such hedged requests: Dean and Barroso, "The Tail at Scale", CACM
56(2), 2013; to prefer leases by their estimated time to end: Zaharia et al.,
"Improving MapReduce Performance in Heterogeneous Environments", OSDI 2008.
Leaves to `grants` whether there is anybody idle whom it helps to ask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from master.scheduler.deadlines import Deadlines
from master.scheduler.leases import Lease

DURATIONS_KEPT: Final = 256
DURATIONS_MIN: Final = 20
"""Below so many the percentile says nothing, and a lease's own expectation counts."""
QUANTILE: Final = 0.95
REFRESH_EVERY: Final = 32


class Stragglers:
    """Live leases by the time at which each becomes a straggler."""

    def __init__(self, factor: float, min_s: float) -> None:
        self._factor = factor
        self._min_s = min_s
        self._durations: deque[float] = deque(maxlen=DURATIONS_KEPT)
        self._since_refresh = 0
        self._usual_s = 0.0
        self._watched: Deadlines[int] = Deadlines()
        self._overdue: dict[int, None] = {}

    def __len__(self) -> int:
        """How many are overdue."""
        return len(self._overdue)

    def watch(self, lease: Lease) -> None:
        """A lease was granted that may be hedged."""
        wait_s = max(self._min_s, self._factor * (self._usual_s or lease.expected_s))
        self._watched.set(lease.token, lease.granted + wait_s)

    def forget(self, lease: Lease) -> None:
        """The lease is over, or hedged now."""
        self._watched.forget(lease.token)
        self._overdue.pop(lease.token, None)

    def hurry(self, lease: Lease) -> None:
        """Its worker is suspect: a watched lease is a straggler at once."""
        if self._watched.get(lease.token) is not None:
            self._watched.forget(lease.token)
            self._overdue[lease.token] = None

    def finished(self, duration_s: float) -> None:
        """A result came `duration_s` after its grant."""
        self._durations.append(duration_s)
        self._since_refresh += 1
        if self._since_refresh >= REFRESH_EVERY or len(self._durations) == DURATIONS_MIN:
            self._since_refresh = 0
            ordered = sorted(self._durations)
            if len(ordered) >= DURATIONS_MIN:
                self._usual_s = ordered[int(QUANTILE * (len(ordered) - 1))]

    def overdue(self, now: float) -> Iterator[int]:
        """Tokens of stragglers, the first overdue one first."""
        for token in self._watched.take_due(now):
            self._overdue[token] = None
        return iter(list(self._overdue))

    def next_deadline(self) -> float | None:
        """When the next lease becomes a straggler."""
        return self._watched.first()
