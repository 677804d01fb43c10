"""Bytes and age of every open job, at eight bytes a job, so that the queue has bounds."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

CHUNK_JOBS = 4096
_WRAP_MS = 2**32


@dataclass(slots=True)
class _Chunk:
    sizes: array[int] = field(default_factory=lambda: array("I", bytes(4 * CHUNK_JOBS)))
    accepted_ms: array[int] = field(default_factory=lambda: array("I", bytes(4 * CHUNK_JOBS)))
    used: int = 0


class Ledger:
    """Open jobs by number; a chunk of numbers whose jobs are all over costs nothing."""

    def __init__(self) -> None:
        self._chunks: dict[int, _Chunk] = {}
        self.total_bytes = 0
        self.jobs = 0

    def add(self, job: int, size_bytes: int, now: float) -> None:
        """Account an open job. Sizes are below 4 GiB; `now` is monotonic seconds."""
        index, offset = divmod(job, CHUNK_JOBS)
        chunk = self._chunks.get(index)
        if chunk is None:
            chunk = self._chunks[index] = _Chunk()
        # 0 marks a free place, so an empty upload counts as one byte.
        chunk.sizes[offset] = max(1, size_bytes)
        chunk.accepted_ms[offset] = int(now * 1000) % _WRAP_MS
        chunk.used += 1
        self.total_bytes += chunk.sizes[offset]
        self.jobs += 1

    def take(self, job: int, now: float) -> float | None:
        """Forget a job that is over; its age in milliseconds, None if it isn't here."""
        index, offset = divmod(job, CHUNK_JOBS)
        chunk = self._chunks.get(index)
        if chunk is None or not chunk.sizes[offset]:
            return None
        self.total_bytes -= chunk.sizes[offset]
        self.jobs -= 1
        chunk.sizes[offset] = 0
        chunk.used -= 1
        if not chunk.used:
            del self._chunks[index]
        return float((int(now * 1000) - chunk.accepted_ms[offset]) % _WRAP_MS)

    def size_bytes(self, job: int) -> int:
        """Bytes of an open job's image; 0 if it isn't here."""
        index, offset = divmod(job, CHUNK_JOBS)
        chunk = self._chunks.get(index)
        return 0 if chunk is None else chunk.sizes[offset]

    def __contains__(self, job: int) -> bool:
        index, offset = divmod(job, CHUNK_JOBS)
        chunk = self._chunks.get(index)
        return chunk is not None and chunk.sizes[offset] > 0
