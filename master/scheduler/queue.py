"""The queue: jobs that wait for a worker, in order of their number.

Job numbers rise, so the order of numbers is the order of acceptance, and a
job that comes back stands before everything accepted after it. Fresh jobs (the
many) cost one byte each; jobs that came back (the few) stand in a heap.
Promises: `head`, `add`, `restore` and `remove` cost O(log n) or less, amortised.
Leaves states, attempts and deadlines of single jobs to `jobs`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Final

from wire.errors import LocalFault

CHUNK_JOBS: Final = 4096
AGE_RESOLUTION_S: Final = 1.0
"""Jobs accepted within this time share one time of acceptance, that of the first."""


class FreshJobs:
    """A set of rising integers, a byte each, taken lowest first."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}
        self._used: dict[int, int] = {}
        self._order: deque[int] = deque()
        self._head = 0
        self._highest = -1
        self._count = 0
        # (first job, when accepted), at least AGE_RESOLUTION_S apart.
        self._marks: deque[tuple[int, float]] = deque()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, job: int) -> bool:
        chunk = self._chunks.get(job // CHUNK_JOBS)
        return chunk is not None and chunk[job % CHUNK_JOBS] == 1

    def __iter__(self) -> Iterator[int]:
        for index in self._order:
            chunk = self._chunks.get(index)
            at = -1
            while chunk is not None and (at := chunk.find(1, at + 1)) >= 0:
                yield index * CHUNK_JOBS + at

    def reach(self, job: int) -> None:
        """Note a number as used. Raises `LocalFault` unless it is higher than all before."""
        if job <= self._highest:
            raise LocalFault(f"job {job} comes after job {self._highest}; numbers must rise")
        self._highest = job

    def add(self, job: int, now: float) -> None:
        """Add a job; the caller has called `reach`."""
        index = job // CHUNK_JOBS
        chunk = self._chunks.get(index)
        if chunk is None:
            chunk = self._chunks[index] = bytearray(CHUNK_JOBS)
            self._used[index] = 0
            self._order.append(index)
        chunk[job % CHUNK_JOBS] = 1
        self._used[index] += 1
        self._count += 1
        if not self._marks or now - self._marks[-1][1] >= AGE_RESOLUTION_S:
            self._marks.append((job, now))

    def remove(self, job: int) -> bool:
        """Take a job out; False if it isn't here."""
        if job not in self:
            return False
        index = job // CHUNK_JOBS
        self._chunks[index][job % CHUNK_JOBS] = 0
        self._count -= 1
        self._used[index] -= 1
        if not self._used[index] and index != self._highest // CHUNK_JOBS:
            del self._chunks[index], self._used[index]
        return True

    def head(self) -> int | None:
        """The lowest job."""
        if not self._count:
            return None
        while True:
            index = self._order[0]
            chunk = self._chunks.get(index)
            start = max(0, self._head - index * CHUNK_JOBS)
            at = chunk.find(1, start) if chunk is not None else -1
            if at >= 0:
                self._head = index * CHUNK_JOBS + at
                return self._head
            self._chunks.pop(index, None)
            self._used.pop(index, None)
            self._order.popleft()

    def accepted_at(self, job: int) -> float:
        """When the head job was accepted, to `AGE_RESOLUTION_S`, never later than it was."""
        while len(self._marks) > 1 and self._marks[1][0] <= job:
            self._marks.popleft()
        return self._marks[0][1]


class ReturnedJobs:
    """Jobs that were granted before and wait again, lowest first."""

    def __init__(self) -> None:
        self._heap: list[int] = []
        self._members: set[int] = set()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, job: int) -> bool:
        return job in self._members

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._members))

    def add(self, job: int) -> None:
        """Add a job that isn't here."""
        self._members.add(job)
        heapq.heappush(self._heap, job)

    def remove(self, job: int) -> bool:
        """Take a job out; False if it isn't here."""
        if job not in self._members:
            return False
        self._members.discard(job)
        if len(self._heap) > 2 * len(self._members) + 64:
            self._heap = sorted(self._members)
        return True

    def head(self) -> int | None:
        """The lowest job."""
        while self._heap and self._heap[0] not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None
