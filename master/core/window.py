"""The images that are about to be dispatched, in memory; all others stay on disk."""

from __future__ import annotations

from typing import Final

AHEAD_JOBS_MAX: Final = 256
"""Jobs at the head of the queue whose images are read from disk at once, at most."""


class Window:
    """Images of freshly accepted jobs, up to a bound in bytes.

    The queue is first in, first out, so what does not fit any more would be
    needed last: it is simply not kept, and read from disk when its turn comes.
    Nor is what comes after it, while that is so: it would take the room of
    what is read ahead for the head of the queue.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._images: dict[int, tuple[str, bytes]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def __contains__(self, job: int) -> bool:
        return job in self._images

    @property
    def room_bytes(self) -> int:
        """What may still be kept."""
        return self._bytes_max - self.bytes

    def offer(self, job: int, name: str, image: bytes) -> None:
        """Keep the image and its name if there is room."""
        if self.bytes + len(image) <= self._bytes_max:
            self._images[job] = (name, image)
            self.bytes += len(image)

    def is_near(self, queued_jobs: int) -> bool:
        """Whether the image of the next job to be accepted, behind so many, is to be kept.

        Some ahead of it may not be here (they came back, say): one read brings them.
        """
        return queued_jobs - len(self._images) <= AHEAD_JOBS_MAX

    def take(self, job: int) -> tuple[str, bytes] | None:
        """Name and image, if they are here; they are dropped from the window."""
        kept = self._images.pop(job, None)
        if kept is not None:
            self.bytes -= len(kept[1])
        return kept
