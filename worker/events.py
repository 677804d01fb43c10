"""What the agent is told and what it answers: events in, effects out.

Messages of the master (`wire.messages`) are events as they are; the classes
here are what happens inside the worker. Nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wire import messages as m
from wire.card import Card

# --- events ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcomed:
    """A connection stands and the handshake is done."""

    peer: str
    lease_ttl_s: float


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """No connection. `hopeless`: trying again with the same flags can't help."""

    code: str
    reason: str
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection ended, by whomever; nothing more comes from it."""

    reason: str


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The model of `card` is in memory, warm and verified."""

    card: Card
    engine: str
    warmup_ms: float


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """The model of `card` can't be served here; `code` and `reason` say why."""

    card: Card
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """One begun lease came to an end; the token in `result` is the one it began with."""

    result: m.Result


@dataclass(frozen=True, slots=True)
class NotBegun:
    """`Started` could not be sent, so these leases were not begun after all."""

    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unwell:
    """This process should be replaced by a fresh one (a wedged decoder, a broken device)."""

    reason: str


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """A signal asks for a clean leave."""

    reason: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The whole process stood still (SIGSTOP, a suspended laptop) for `gap_s`."""

    gap_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """The deadline that `Agent.next_deadline` named has come."""


Event = (
    Welcomed
    | JoinFailed
    | ConnectionLost
    | ModelLoaded
    | ModelFailed
    | Finished
    | NotBegun
    | Unwell
    | DrainAsked
    | Paused
    | Tick
    | m.Message
)
Post = Callable[[Event], None]
"""How any thread tells the agent something."""


# --- effects ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """An `Assign` with the points in time that it implies, in monotonic seconds."""

    assign: m.Assign
    received_s: float
    deadline_s: float | None

    @property
    def ref(self) -> m.LeaseRef:
        """Job and token, as messages name them."""
        return m.LeaseRef(job=self.assign.job, token=self.assign.token)


@dataclass(frozen=True, slots=True)
class Connect:
    """Try to join after `after_s`."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message on the connection; if it is gone, `ConnectionLost` follows by itself."""

    message: m.Message


@dataclass(frozen=True, slots=True)
class Begin:
    """Send `Started` for the leases, then execute them; `NotBegun` if that can't be sent."""

    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Get the model of `card` into memory, and answer `ModelLoaded` or `ModelFailed`."""

    card: Card


@dataclass(frozen=True, slots=True)
class Serve:
    """Execute what begins from now on with the model of `card`."""

    card: Card


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process with `code`, or replace it by a fresh one if `restart`."""

    code: int
    reason: str
    restart: bool = False


Effect = Connect | Send | Begin | Load | Serve | Exit
