"""What the scheduler asks its shell to do: its whole output.

The shell carries effects out in order. The ones about storage need no answer:
the scheduler has already moved on, and what the store has not yet written when
the machine dies is done again after recovery (at-least-once execution), never
lost and never told twice (an outcome is told after it is durable).
"""

from __future__ import annotations

from dataclasses import dataclass

from master.states import JobState, Liveness, Outcome


@dataclass(frozen=True, slots=True)
class ReserveTokens:
    """Durably reserve tokens up to `last`, then say `TokensReserved`."""

    last: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Send this job to this worker under a fresh token.

    `attempt` counts from 1. `timeout_s` is what is left to the job's deadline.
    `alone`: nothing else may execute with it. `hedge`: another lease of the
    job is live, the first result wins.
    """

    worker: str
    job: int
    token: int
    attempt: int
    timeout_s: float | None
    alone: bool
    hedge: bool


@dataclass(frozen=True, slots=True)
class Revoke:
    """Tell the worker to drop this lease if it has not begun."""

    worker: str
    job: int
    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The job has its one outcome. Write it; once durable, ack the worker and tell people.

    `worker`/`token` name the lease whose result this is, or are None when no
    result made it (cancelled, deadline, poison, attempts used up). `started` is
    monotonic seconds at which that attempt began.
    """

    job: int
    state: JobState
    attempts: int
    worker: str | None
    token: int | None
    started: float | None
    error_code: str | None = None
    error_message: str = ""
    late: bool = False


@dataclass(frozen=True, slots=True)
class AnswerStale:
    """The result is not taken: its token is fenced or the job is over."""

    worker: str
    job: int
    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """For the audit table, and for `attempts`/`blamed` counts that survive a restart.

    `blamed` is true when the job was executing as its worker died.
    `granted` and `started` are monotonic seconds.
    """

    job: int
    token: int
    worker: str
    outcome: Outcome
    granted: float
    started: float | None
    blamed: bool = False
    error_code: str | None = None
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class JobChanged:
    """For people: the job moved between non-terminal states."""

    job: int
    source: JobState
    target: JobState
    worker: str | None
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class LivenessChanged:
    """The failure detector changed its mind about a worker."""

    worker: str
    source: Liveness
    target: Liveness
    phi: float
    reason: str


@dataclass(frozen=True, slots=True)
class AskDrain:
    """Send `Drain` to the worker."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class DropWorker:
    """Close this worker's connection (silent beyond the hard limit, or replaced)."""

    worker: str
    reason: str


Effect = (
    ReserveTokens
    | Grant
    | Revoke
    | Finish
    | AnswerStale
    | AttemptEnded
    | JobChanged
    | LivenessChanged
    | AskDrain
    | DropWorker
)
