"""A heap of points in time, one per key, whose entries may be moved or forgotten.

Owns nothing but times. An entry that was replaced stays in the heap until it
comes up or until dead entries outnumber living ones; both cost O(log n),
amortised, and the memory stays within twice the living entries.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

K = TypeVar("K", int, str)
_SLACK: Final = 64


class Deadlines(Generic[K]):
    """Keys with the time at which each is due."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[K]:
        return iter(self._due)

    def get(self, key: K) -> float | None:
        """When the key is due; None if it isn't here."""
        return self._due.get(key)

    def set(self, key: K, due: float) -> None:
        """Make the key due at `due`, whatever it was before."""
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        self._compact()

    def forget(self, key: K) -> None:
        """Take the key out, if it is here."""
        if self._due.pop(key, None) is not None:
            self._compact()

    def first(self) -> float | None:
        """The earliest time."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def key(self) -> K:
        """The key that is due first; `first` has said that there is one."""
        return self._heap[0][1]

    def take_due(self, now: float) -> Iterator[K]:
        """Take out the keys that are due, earliest first, also ones that are set meanwhile."""
        while (due := self.first()) is not None and due <= now:
            key = heapq.heappop(self._heap)[1]
            del self._due[key]
            yield key

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(due, key) for key, due in self._due.items()]
            heapq.heapify(self._heap)
