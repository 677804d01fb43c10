"""How long a write may wait for others of its group commit: a small part of what jobs take.

A commit costs two syncs and wakes whoever waits for it, whether it holds one write or fifty.
While jobs wait for a worker anyway, commits further apart save processor time and nobody
notices; on an idle cluster every millisecond is noticed. So the time that recent jobs took, from
upload to outcome, decides, and of those the shortest: one quick job is enough to hurry again.
"""

from __future__ import annotations

from collections import deque

SHARE = 0.05
"""Part of a job's time that one of its writes may wait."""
PATIENCE_S_MAX = 0.02
JOBS_WATCHED = 8


class Pace:
    """Watches the time that jobs take."""

    def __init__(self) -> None:
        self._ages_s: deque[float] = deque([0.0], maxlen=JOBS_WATCHED)

    def ended(self, age_s: float) -> None:
        """A job has ended, so long after it was accepted."""
        self._ages_s.append(age_s)

    @property
    def patience_s(self) -> float:
        """How far apart commits may lie now; 0 until `JOBS_WATCHED` jobs have ended."""
        return min(PATIENCE_S_MAX, SHARE * min(self._ages_s))
