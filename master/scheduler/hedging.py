"""Which leases have become stragglers, worth a second lease on an idle worker.

A lease is a straggler when its age passes `factor` times the 95th percentile
of the last leases' durations. While too few are known (a cluster that starts
is slow, and more work makes it slower) it takes `unknown_s` and `factor` times
what the lease's place in the worker's slots let expect. A lease on a suspect
worker is one at once. Leaves to `grants` whether there is anybody idle whom it
helps to ask.

Tail tolerance by hedged requests, within a budget of extra load: Dean and
Barroso, "The Tail at Scale", CACM 56(2), 2013; leases preferred by their
estimated time to end: Zaharia et al., "Improving MapReduce Performance in
Heterogeneous Environments", OSDI 2008.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from master.scheduler.deadlines import Deadlines
from master.scheduler.leases import Lease

DURATIONS_KEPT: Final = 256
DURATIONS_MIN: Final = 20
"""Below so many the percentile says nothing, and a lease's own expectation counts."""
QUANTILE: Final = 0.95
REFRESH_EVERY: Final = 32


class Stragglers:
    """Live leases by the time at which each is worth a look, and those overdue."""

    def __init__(self, factor: float, min_s: float, unknown_s: float) -> None:
        self._factor = factor
        self._min_s = min_s
        self._unknown_s = unknown_s
        self._durations: deque[float] = deque(maxlen=DURATIONS_KEPT)
        self._since_refresh = 0
        self._usual_s: float | None = None
        self._leases: dict[int, Lease] = {}
        self._watched: Deadlines[int] = Deadlines()
        self._overdue: dict[int, None] = {}

    def watch(self, lease: Lease) -> None:
        """A lease was granted that may be hedged."""
        self._leases[lease.token] = lease
        self._watched.set(lease.token, lease.granted + self._min_s)

    def forget(self, lease: Lease) -> None:
        """The lease is over, or hedged now."""
        if self._leases.pop(lease.token, None) is not None:
            self._watched.forget(lease.token)
            self._overdue.pop(lease.token, None)

    def hurry(self, lease: Lease) -> None:
        """Its worker is suspect: a watched lease is a straggler at once."""
        if lease.token in self._leases:
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

    def overdue(self, now: float) -> list[Lease]:
        """The stragglers, the first overdue one first."""
        for token in self._watched.take_due(now):
            due = self._due(self._leases[token])
            if due <= now:
                self._overdue[token] = None
            else:
                self._watched.set(token, due)
        return [self._leases[token] for token in self._overdue]

    def next_deadline(self) -> float | None:
        """When the next lease is worth a look."""
        return self._watched.first()

    def _due(self, lease: Lease) -> float:
        """When the lease counts as a straggler, by what is known now."""
        if self._usual_s is not None:
            return lease.granted + max(self._min_s, self._factor * self._usual_s)
        return lease.granted + max(self._unknown_s, self._factor * lease.expected_s)
