"""How far apart commits may lie, as a part of what jobs wait.

A commit costs two syncs and wakes whoever waits for it, whether it holds one write or fifty,
and beside inference each wake-up finds its caches cold. While jobs wait for a worker anyway,
commits further apart save processor time and nobody notices; on an idle cluster every
millisecond is noticed. So the time that recent jobs waited decides, here or at their worker,
and of those the shortest: one job that was begun at once is enough to hurry again.

A job is held up twice, when it is accepted and when it ends. Twice `SHARE` stays well below 1,
so that no worker runs dry for it.
"""

from __future__ import annotations

from collections import deque

from master.core.journal import Ended

SHARE = 0.3
"""Part of the time a job waits that one of its writes may wait."""
PATIENCE_S_MAX = 0.1
GATHER_SHARE = 0.2
"""Part of the patience for which a web process may hold uploads back; the commit has the rest."""
JOBS_WATCHED = 8


class Pace:
    """Watches the time that jobs wait."""

    def __init__(self) -> None:
        self._waited_s: deque[float] = deque([0.0], maxlen=JOBS_WATCHED)

    def ended(self, waited_s: float) -> None:
        """A job has ended that had waited so long."""
        self._waited_s.append(waited_s)

    def idle(self) -> None:
        """No job is left: what comes next finds no queue."""
        self._waited_s.append(0.0)

    @property
    def patience_s(self) -> float:
        """How far apart commits may lie now; 0 until `JOBS_WATCHED` jobs have ended."""
        return min(PATIENCE_S_MAX, SHARE * min(self._waited_s))

    @property
    def gather_s(self) -> float:
        """For how long uploads may be gathered where they come in."""
        return GATHER_SHARE * self.patience_s


def waited_s(ended: Ended, age_s: float, wall_s: float) -> float:
    """How long a job of this age waited: for its last start, or at its worker if that was longer.

    0 if it was never begun. What comes after its end doesn't count: it would justify itself.
    """
    started_at = ended.end.started_at
    if started_at is None:
        return 0.0
    return max(0.0, age_s - (wall_s - started_at), ended.queued_s)
