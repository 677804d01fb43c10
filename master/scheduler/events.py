"""What can happen to the scheduler: its whole input, one frozen dataclass each.

Jobs are known here by their integer number (`j17` is 17), workers by the id
that the core gave their connection: a worker that reconnects is a new worker
to the scheduler, with the same `name`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from master.states import Outcome


@dataclass(frozen=True, slots=True)
class TokensReserved:
    """Fencing tokens up to and including `last` are durably reserved for us.

    `first` is given once, at start: no lease of an earlier life had it.
    """

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class JobsAccepted:
    """New jobs, already durable, in order. `deadline` is monotonic seconds or None."""

    jobs: Sequence[int]
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class JobRecovered:
    """A job that an earlier life of the core left without an outcome."""

    job: int
    attempts: int
    blamed_deaths: Sequence[str]
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class JobsRecovered:
    """Jobs that an earlier life left, in order, without attempts, deaths or deadlines."""

    jobs: Sequence[int]


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker passed the handshake; it takes no work yet."""

    worker: str
    name: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker is warm and takes up to `slots` leases; also sent on a change of model."""

    worker: str
    slots: int
    model: str


@dataclass(frozen=True, slots=True)
class WorkerUnready:
    """A worker can't serve the model in force (yet); it keeps its connection."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """The connection ended. `clean` after a `Goodbye`: nothing is blamed then."""

    worker: str
    reason: str
    clean: bool = False


@dataclass(frozen=True, slots=True)
class HeartbeatSeen:
    """A heartbeat arrived; fields as in the message."""

    worker: str
    progress: int
    held: int
    executing: int


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The worker is about to decode this job's image."""

    worker: str
    job: int
    token: int


@dataclass(frozen=True, slots=True)
class ResultArrived:
    """The worker answers a lease.

    `fault_code` is None for a success. `model` is the card's id that made it.
    The content of the result stays with the shell, which is told by an effect
    what to do with it.
    """

    worker: str
    job: int
    token: int
    model: str
    fault_code: str | None = None
    fault_message: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """The worker gives a lease back that it had not begun."""

    worker: str
    job: int
    token: int


@dataclass(frozen=True, slots=True)
class JobsCancelled:
    """A person, or the end of an open submission, cancels these jobs."""

    jobs: Sequence[int]
    reason: str


@dataclass(frozen=True, slots=True)
class DrainWorkerAsked:
    """No new leases for this worker; it is asked to finish and leave."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerDraining:
    """The worker says that it is leaving (SIGTERM at its end)."""

    worker: str


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """Results of another model are not taken from now on (see `late.py`)."""

    model: str


@dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """The core drains: no grants from now on."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; `next_deadline()` said when this is due."""


Event = (
    TokensReserved
    | JobsAccepted
    | JobRecovered
    | JobsRecovered
    | WorkerJoined
    | WorkerReady
    | WorkerUnready
    | WorkerGone
    | HeartbeatSeen
    | AttemptStarted
    | ResultArrived
    | LeaseReleased
    | JobsCancelled
    | DrainWorkerAsked
    | WorkerDraining
    | ModelChanged
    | ShutdownAsked
    | Tick
)

__all__ = ["Event", "Outcome"]
