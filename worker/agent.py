"""The worker's side of joining, working and leaving, as a pure state machine.

`handle(event, now)` returns effects; `next_deadline()` says when `Tick` is
due. Owns which leases are held and begun, which results are unanswered, when
to connect again and when to exit. Promises: a result is kept until the master
answers it and is never computed twice while it is kept; only leases announced
by `Started` are executed; a clean leave gives back what was not begun. Leaves
sockets, threads and models to `worker.service`.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from wire import messages as m
from wire.card import Card
from wire.errors import LocalFault
from worker import events as e
from worker.backoff import Backoff
from worker.leases import Leases
from worker.outbox import CAPACITY_RESULTS, Outbox


class Phase(enum.Enum):
    """Where the agent stands towards its master."""

    SEEKING = "seeking"
    """No connection; a try is under way or due."""
    JOINED = "joined"
    """Connected; takes work once a model is ready."""
    LEAVING = "leaving"
    """Connected and draining: finishes, gives back, then says goodbye."""
    ORPHANED = "orphaned"
    """Draining without a connection: seeks one only to deliver results."""
    GONE = "gone"
    """`Exit` was returned; nothing matters any more."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Bounds of the agent. A connection that lasted `stable_s` clears the backoff."""

    slots: int
    executing_max: int
    backoff_base_s: float = 0.2
    backoff_cap_s: float = 10.0
    # The same where nobody listens: a master that starts again is back within seconds.
    away_cap_s: float = 2.0
    stable_s: float = 5.0
    drain_timeout_s: float = 30.0
    restart_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class _Leave:
    """Why and until when the agent drains, and what follows."""

    reason: str
    deadline_s: float
    restart: bool


class Agent:
    """One worker process's dealings with its master."""

    def __init__(self, config: AgentConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._backoff = Backoff(config.backoff_base_s, config.backoff_cap_s)
        self._leases = Leases(config.executing_max)
        self._outbox = Outbox()
        self._served: e.ModelLoaded | None = None
        self._wanted: Card | None = None
        self._leave: _Leave | None = None
        self._ready = False
        self._welcomed_s: float | None = None
        self._lease_ttl_s = 0.0
        self.phase = Phase.SEEKING

    # --- what the shell reads ----------------------------------------------------------

    @property
    def held(self) -> int:
        """Leases in hand."""
        return self._leases.held

    @property
    def executing(self) -> int:
        """Leases begun and unfinished."""
        return self._leases.executing

    @property
    def unanswered(self) -> int:
        """Results that wait for `Accepted` or `Stale`."""
        return len(self._outbox)

    @property
    def ready(self) -> bool:
        """`Ready` was sent on this connection and nothing took it back."""
        return self._ready

    def next_deadline(self) -> float | None:
        """When `Tick` is due, in the clock of `now`; None while nothing is waited for."""
        if self._leave is None or self.phase is Phase.GONE:
            return None
        return self._leave.deadline_s

    def start(self) -> list[e.Effect]:
        """The first effect: connect without waiting."""
        return [e.Connect(after_s=0.0)]

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event at `now` (monotonic seconds).

        Raises `LocalFault` for an event that the table doesn't list in this phase.
        """
        if self.phase is Phase.GONE:
            return []
        handler = _TABLE.get((self.phase, type(event)))
        if handler is None:
            raise LocalFault(f"{type(event).__name__} can't come while {self.phase.value}")
        return handler(self, event, now)

    # --- the connection ----------------------------------------------------------------

    def _welcomed(self, event: e.Welcomed, now: float) -> list[e.Effect]:
        self._welcomed_s = now
        self._lease_ttl_s = event.lease_ttl_s
        unanswered: list[e.Effect] = [e.Send(result) for result in self._outbox.pending()]
        if self._leave is None:
            self.phase = Phase.JOINED
            return unanswered
        self.phase = Phase.LEAVING
        draining = e.Send(m.Draining(reason=self._leave.reason))
        return [draining, *unanswered, *self._leave_if_done()]

    def _join_failed(self, event: e.JoinFailed, now: float) -> list[e.Effect]:
        if event.hopeless and self._welcomed_s is None:
            return self._exit(2, event.reason)
        cap_s = self._config.away_cap_s if event.code == "unreachable" else math.inf
        return [e.Connect(self._backoff.next_delay_s(self._rng, cap_s))]

    def _lost(self, event: e.ConnectionLost, now: float) -> list[e.Effect]:
        self._ready = False
        self._leases.drop_all()
        self.phase = Phase.SEEKING if self._leave is None else Phase.ORPHANED
        if self._leave is not None and self._is_idle():
            return self._exit(0, self._leave.reason)
        if self._welcomed_s is not None and now - self._welcomed_s >= self._config.stable_s:
            self._backoff.reset()
        return [e.Connect(self._backoff.next_delay_s(self._rng))]

    # --- the model ---------------------------------------------------------------------

    def _model_offered(self, event: m.Model, now: float) -> list[e.Effect]:
        self._wanted = event.card
        if self._served is not None and self._served.card == event.card:
            return self._announce(now)
        return [e.Load(event.card)]

    def _model_loaded(self, event: e.ModelLoaded, now: float) -> list[e.Effect]:
        known = self._ready and self._served is not None and self._served.card == event.card
        if event.card != self._wanted or known:
            return []
        self._served = event
        serve = e.Serve(event.card)
        return [serve, *self._announce(now)] if self.phase is Phase.JOINED else [serve]

    def _announce(self, now: float) -> list[e.Effect]:
        assert self._served is not None
        self._ready = True
        ready = m.Ready(
            model=self._served.card.id,
            engine=self._served.engine,
            slots=self._config.slots,
            warmup_ms=self._served.warmup_ms,
        )
        return [e.Send(ready), *self._begin_more(now)]

    def _model_failed(self, event: e.ModelFailed, now: float) -> list[e.Effect]:
        if event.card != self._wanted or self.phase is not Phase.JOINED:
            return []
        fault = m.ModelFault(model=event.card.id, code=event.code, reason=event.reason[:4096])
        return [e.Send(fault)]

    # --- work --------------------------------------------------------------------------

    def _assigned(self, event: m.Assign, now: float) -> list[e.Effect]:
        model = None if self._served is None else self._served.card.id
        known = self._outbox.readdress(event.job, event.token, model)
        if known is not None:
            return [e.Send(known)]
        lease = e.Lease(event, now, None if event.timeout_s is None else now + event.timeout_s)
        if self._leases.is_executing(event.job):
            self._leases.renew(event.job, event.token)
            return [e.Send(m.Started(leases=[lease.ref]))]
        if self._leases.held >= self._config.slots:
            return [e.Send(m.Released(leases=[lease.ref], reason="every slot is taken"))]
        self._leases.enqueue(lease)
        return self._begin_more(now)

    def _declined(self, event: m.Assign, now: float) -> list[e.Effect]:
        ref = m.LeaseRef(job=event.job, token=event.token)
        return [e.Send(m.Released(leases=[ref], reason="the worker is leaving"))]

    def _begin_more(self, now: float) -> list[e.Effect]:
        effects: list[e.Effect] = []
        begun: list[e.Lease] = []
        while self._ready and self._has_room() and (lease := self._leases.begin_next()):
            if lease.deadline_s is not None and now >= lease.deadline_s:
                effects += self._report(self._expired(lease), now)
            else:
                begun.append(lease)
        return [*effects, e.Begin(tuple(begun))] if begun else effects

    def _has_room(self) -> bool:
        return len(self._outbox) + self._leases.executing < CAPACITY_RESULTS

    def _expired(self, lease: e.Lease) -> m.Result:
        assert self._served is not None
        waited_s = lease.assign.timeout_s
        fault = m.Fault(
            code="deadline_passed",
            message=f"the job's deadline came {waited_s} s after it reached this worker, unstarted",
        )
        return m.Result(
            job=lease.assign.job, token=lease.assign.token, model=self._served.card.id, fault=fault
        )

    def _not_begun(self, event: e.NotBegun, now: float) -> list[e.Effect]:
        for job in event.jobs:
            self._leases.finish(job)
        return self._leave_if_done()

    def _finished(self, event: e.Finished, now: float) -> list[e.Effect]:
        effects = self._report(event.result, now)
        if self.phase is Phase.JOINED:
            return effects + self._begin_more(now)
        return effects + self._leave_if_done()

    def _report(self, result: m.Result, now: float) -> list[e.Effect]:
        token = self._leases.finish(result.job)
        if token is None:
            raise LocalFault(f"job {result.job} finished here but was never begun")
        if token != result.token:
            result = msgspec.structs.replace(result, token=token)
        self._outbox.put(result)
        linked = self.phase in (Phase.JOINED, Phase.LEAVING)
        return [e.Send(result)] if linked else []

    def _answered(self, event: m.Accepted | m.Stale, now: float) -> list[e.Effect]:
        self._outbox.answered(event.job, event.token)
        return self._begin_more(now) if self.phase is Phase.JOINED else self._leave_if_done()

    def _cancelled(self, event: m.Cancel, now: float) -> list[e.Effect]:
        self._leases.drop(event.job, event.token)
        return self._begin_more(now) if self.phase is Phase.JOINED else []

    def _paused(self, event: e.Paused, now: float) -> list[e.Effect]:
        if event.gap_s < self._lease_ttl_s:
            return []
        return self._give_back(f"the process stood still for {event.gap_s:.1f} s")

    def _give_back(self, reason: str) -> list[e.Effect]:
        refs = [lease.ref for lease in self._leases.drop_all()]
        return [e.Send(m.Released(leases=refs, reason=reason))] if refs else []

    # --- leaving -----------------------------------------------------------------------

    def _drain_asked(self, event: e.DrainAsked | m.Drain, now: float) -> list[e.Effect]:
        return self._begin_leaving(event.reason, now + self._config.drain_timeout_s, False)

    def _drain_rather(self, event: e.DrainAsked, now: float) -> list[e.Effect]:
        # Whoever asks for an end while the process wants to be replaced gets the end.
        assert self._leave is not None
        self._leave = _Leave(event.reason, self._leave.deadline_s, restart=False)
        return []

    def _unwell(self, event: e.Unwell, now: float) -> list[e.Effect]:
        return self._begin_leaving(event.reason, now + self._config.restart_timeout_s, True)

    def _begin_leaving(self, reason: str, deadline_s: float, restart: bool) -> list[e.Effect]:
        self._leave = _Leave(reason, deadline_s, restart)
        self._ready = False
        if self.phase is Phase.SEEKING:
            self.phase = Phase.ORPHANED
            return self._exit(0, reason) if self._is_idle() else []
        self.phase = Phase.LEAVING
        back = self._give_back(reason)
        return [e.Send(m.Draining(reason=reason)), *back, *self._leave_if_done()]

    def _leave_if_done(self) -> list[e.Effect]:
        if self._leave is None or not self._is_idle():
            return []
        goodbye = e.Send(m.Goodbye(reason=self._leave.reason))
        said: list[e.Effect] = [goodbye] if self.phase is Phase.LEAVING else []
        return said + self._exit(0, self._leave.reason)

    def _is_idle(self) -> bool:
        return self._leases.held == 0 and len(self._outbox) == 0

    def _ticked(self, event: e.Tick, now: float) -> list[e.Effect]:
        if self._leave is None or now < self._leave.deadline_s:
            return []
        left = f"{self._leases.executing} executing, {len(self._outbox)} results unanswered"
        return self._exit(1, f"{self._leave.reason}; the time to drain is over with {left}")

    def _exit(self, code: int, reason: str) -> list[e.Effect]:
        restart = self._leave is not None and self._leave.restart
        self.phase = Phase.GONE
        return [e.Exit(code, reason, restart)]

    def _ignored(self, event: e.Event, now: float) -> list[e.Effect]:
        return []


_Handler = Callable[[Agent, Any, float], list[e.Effect]]
_UNLINKED = (Phase.SEEKING, Phase.ORPHANED)
_LINKED = (Phase.JOINED, Phase.LEAVING)
_STAYING = (Phase.SEEKING, Phase.JOINED)
_DRAINING = (Phase.LEAVING, Phase.ORPHANED)
_ANY = (*_UNLINKED, *_LINKED)

_ROWS: list[tuple[tuple[Phase, ...], type, _Handler]] = [
    (_UNLINKED, e.Welcomed, Agent._welcomed),
    (_UNLINKED, e.JoinFailed, Agent._join_failed),
    (_LINKED, e.ConnectionLost, Agent._lost),
    ((Phase.JOINED,), m.Model, Agent._model_offered),
    ((Phase.LEAVING,), m.Model, Agent._ignored),
    (_STAYING, e.ModelLoaded, Agent._model_loaded),
    (_DRAINING, e.ModelLoaded, Agent._ignored),
    (_ANY, e.ModelFailed, Agent._model_failed),
    ((Phase.JOINED,), m.Assign, Agent._assigned),
    ((Phase.LEAVING,), m.Assign, Agent._declined),
    (_ANY, e.NotBegun, Agent._not_begun),
    (_ANY, e.Finished, Agent._finished),
    (_LINKED, m.Accepted, Agent._answered),
    (_LINKED, m.Stale, Agent._answered),
    (_LINKED, m.Cancel, Agent._cancelled),
    ((Phase.JOINED,), e.Paused, Agent._paused),
    ((*_UNLINKED, Phase.LEAVING), e.Paused, Agent._ignored),
    (_STAYING, e.DrainAsked, Agent._drain_asked),
    (_DRAINING, e.DrainAsked, Agent._drain_rather),
    ((Phase.JOINED,), m.Drain, Agent._drain_asked),
    ((Phase.LEAVING,), m.Drain, Agent._ignored),
    (_STAYING, e.Unwell, Agent._unwell),
    (_DRAINING, e.Unwell, Agent._ignored),
    (_ANY, e.Tick, Agent._ticked),
]
_TABLE = {(phase, kind): handler for phases, kind, handler in _ROWS for phase in phases}
