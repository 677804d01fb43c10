"""The states of a job, an attempt and a worker, and the transitions that exist.

One literal table says which transitions a job may take; a pair that it does
not list is our bug and raises.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from wire.errors import LocalFault


class JobState(StrEnum):
    """Where a job is. The last three are terminal: a job never leaves them."""

    QUEUED = "queued"
    LEASED = "leased"
    BACKOFF = "backoff"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True once the job has its one outcome."""
        return self in TERMINAL


TERMINAL: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    # A late result may also end a job that went back to the queue.
    JobState.QUEUED: frozenset(
        {JobState.LEASED, JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED}
    ),
    JobState.LEASED: frozenset(
        {
            JobState.QUEUED,
            JobState.BACKOFF,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    # A late result from a fenced lease may end a job that waits for its next attempt.
    JobState.BACKOFF: frozenset(
        {JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def check_transition(source: JobState, target: JobState) -> None:
    """Raise `LocalFault` for a transition that the table does not list."""
    if target not in TRANSITIONS[source]:
        raise LocalFault(f"a job may not go from {source} to {target}")


class Outcome(StrEnum):
    """How one attempt ended.

    `errored`: the worker answered with a fault. `expired`: its deadline or
    progress limit passed. `lost`: the worker died or was cut off. `released`:
    given back before it began. `cancelled`: the job was, or another attempt won.
    """

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    EXPIRED = "expired"
    LOST = "lost"
    RELEASED = "released"
    CANCELLED = "cancelled"


class Liveness(StrEnum):
    """What the failure detector believes of a worker."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


class Admission(StrEnum):
    """Whether a worker may get leases, whatever its liveness."""

    ACCEPTING = "accepting"
    DRAINING = "draining"
    QUARANTINED = "quarantined"
