"""What can happen to the scheduler: its whole input, one frozen dataclass each.

Jobs are known here by their integer number (`j17` is 17), workers by the id
that the core gave their connection: a worker that reconnects is a new worker
to the scheduler, with the same `name`.

These are `msgspec.Struct`s, which work like frozen dataclasses and cost a seventh to make
(0.12 us against 0.88): a job takes three of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from master.states import Outcome


class TokensReserved(msgspec.Struct, frozen=True):
    """Fencing tokens up to and including `last` are durably reserved for us.

    `first` is given once, at start: no lease of an earlier life had it.
    """

    first: int
    last: int


class JobsAccepted(msgspec.Struct, frozen=True):
    """New jobs, already durable, in order. `deadline` is monotonic seconds or None."""

    jobs: Sequence[int]
    deadline: float | None = None


class JobRecovered(msgspec.Struct, frozen=True):
    """A job that an earlier life of the core left without an outcome."""

    job: int
    attempts: int
    blamed_deaths: Sequence[str]
    deadline: float | None = None


class JobsRecovered(msgspec.Struct, frozen=True):
    """Jobs that an earlier life left, in order, without attempts, deaths or deadlines."""

    jobs: Sequence[int]


class WorkerJoined(msgspec.Struct, frozen=True):
    """A worker passed the handshake; it takes no work yet."""

    worker: str
    name: str
    incarnation: str


class WorkerReady(msgspec.Struct, frozen=True):
    """A worker is warm and takes up to `slots` leases; also sent on a change of model."""

    worker: str
    slots: int
    model: str


class WorkerUnready(msgspec.Struct, frozen=True):
    """A worker can't serve the model in force (yet); it keeps its connection."""

    worker: str


class WorkerGone(msgspec.Struct, frozen=True):
    """The connection ended. `clean` after a `Goodbye`: nothing is blamed then."""

    worker: str
    reason: str
    clean: bool = False


class HeartbeatSeen(msgspec.Struct, frozen=True):
    """A heartbeat arrived; fields as in the message."""

    worker: str
    progress: int
    held: int
    executing: int


class AttemptStarted(msgspec.Struct, frozen=True):
    """The worker is about to decode this job's image."""

    worker: str
    job: int
    token: int


class ResultArrived(msgspec.Struct, frozen=True):
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


class LeaseReleased(msgspec.Struct, frozen=True):
    """The worker gives a lease back that it had not begun."""

    worker: str
    job: int
    token: int


class JobsCancelled(msgspec.Struct, frozen=True):
    """A person, or the end of an open submission, cancels these jobs."""

    jobs: Sequence[int]
    reason: str


class DrainWorkerAsked(msgspec.Struct, frozen=True):
    """No new leases for this worker; it is asked to finish and leave."""

    worker: str
    reason: str


class WorkerDraining(msgspec.Struct, frozen=True):
    """The worker says that it is leaving (SIGTERM at its end)."""

    worker: str


class ModelChanged(msgspec.Struct, frozen=True):
    """Results of another model are not taken from now on (see `late.py`)."""

    model: str


class ShutdownAsked(msgspec.Struct, frozen=True):
    """The core drains: no grants from now on."""


class Tick(msgspec.Struct, frozen=True):
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
