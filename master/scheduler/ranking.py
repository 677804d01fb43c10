"""Which worker gets the next job: the one expected to finish it first.

A worker with `used` slots taken and a measured rate finishes one more job
after (used + 1) / rate seconds. Promises O(log workers) a change and a choice.

The tail rule: a slow worker must not take one of the last jobs if the others
would be through with everything before it finished that one. With `queued`
jobs waiting, the others need about (queued + their used slots) / their summed
rates; where the slow worker needs more than `tail_factor` times that, the job
waits for a faster one. The wait is bounded by `grants`.
"""

from __future__ import annotations

import heapq
from typing import Final

from master.scheduler.workers import Worker

_SLACK: Final = 64
NO_SHARE: Final = (0.0, 0)


class Ranking:
    """Workers that may get a lease, best first."""

    def __init__(self, tail_factor: float) -> None:
        self._tail_factor = tail_factor
        self._heap: list[tuple[float, int, Worker]] = []
        self._open = 0
        self._serial = 0
        self.rate_per_s = 0.0
        self.used = 0

    def __len__(self) -> int:
        """How many may get a lease now."""
        return self._open

    def update(self, worker: Worker) -> None:
        """Rank a worker anew; to be called after every change of one."""
        used, rate_per_s = worker.used, worker.rate.per_s
        self._share(worker, (rate_per_s, used) if worker.working else NO_SHARE)
        self._open -= worker.entry is not None
        worker.entry = None
        if worker.open:
            # The serial makes entries unique, so that workers are never compared.
            self._serial += 1
            worker.entry = ((used + 1) / rate_per_s, self._serial, worker)
            self._open += 1
            heapq.heappush(self._heap, worker.entry)
            if len(self._heap) > 2 * self._open + _SLACK:
                self._compact()

    def forget(self, worker: Worker) -> None:
        """The worker is gone."""
        self._share(worker, NO_SHARE)
        self._open -= worker.entry is not None
        worker.entry = None

    def best(self, avoid: tuple[str, ...] = (), barred: str | None = None) -> Worker | None:
        """The open worker that finishes first, if it can be one whose name isn't in `avoid`.

        The connection `barred` is out of the question.
        """
        passed: list[tuple[float, int, Worker]] = []
        found = second = None
        while found is None and (worker := self._top()) is not None:
            if worker.key != barred and worker.name not in avoid:
                found = worker
            else:
                passed.append(heapq.heappop(self._heap))
                if worker.key != barred and second is None:
                    second = worker
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found or second

    def worth_waiting(self, worker: Worker, queued: int, barred: Worker | None = None) -> bool:
        """The tail rule: do the others finish everything well before this worker one job?

        `barred` is not one of the others.
        """
        others_per_s, others_used = self.rate_per_s, self.used
        for excluded in (worker, barred):
            if excluded is not None:
                others_per_s -= excluded.shares[0]
                others_used -= excluded.shares[1]
        # What rounding leaves of the sum is no worker.
        if others_per_s <= 1e-9 * self.rate_per_s:
            return False
        others_s = (queued + others_used) / others_per_s
        return (worker.used + 1) / worker.rate.per_s > self._tail_factor * others_s

    def _share(self, worker: Worker, share: tuple[float, int]) -> None:
        """Keep the sums over the working workers: their rates, and what they hold."""
        before = worker.shares
        worker.shares = share
        self.rate_per_s += share[0] - before[0]
        self.used += share[1] - before[1]

    def _top(self) -> Worker | None:
        heap = self._heap
        while heap and heap[0][2].entry is not heap[0]:
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].entry is entry]
        heapq.heapify(self._heap)
