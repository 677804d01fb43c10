"""A scheduler on literal time, with a record of what it said and the promises checked each step."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, TypeVar

from master.scheduler import Scheduler, SchedulerConfig
from master.scheduler import effects as fx
from master.scheduler import events as ev
from master.states import JobState, Outcome

E = TypeVar("E")
FIRST_TOKEN = 1000
MODEL = "m1"


class Ledger:
    """What must be true of any stream of effects, whatever the events were."""

    def __init__(self) -> None:
        self.grants: dict[int, fx.Grant] = {}
        self.live: dict[int, dict[int, fx.Grant]] = {}
        self.ended: dict[int, fx.AttemptEnded] = {}
        self.finished: dict[int, fx.Finish] = {}
        self.reserved = -1

    def take(self, effect: fx.Effect) -> None:
        """Check one effect against everything before it."""
        if isinstance(effect, fx.Grant):
            self._grant(effect)
        elif isinstance(effect, fx.AttemptEnded):
            self._ended(effect)
        elif isinstance(effect, fx.Finish):
            assert effect.job not in self.finished, f"second outcome: {effect}"
            assert effect.state.terminal
            assert not self.live.get(effect.job), f"{effect} with live leases"
            self.finished[effect.job] = effect
        elif isinstance(effect, fx.JobChanged):
            assert effect.job not in self.finished, f"{effect} after its outcome"
            assert not effect.source.terminal and not effect.target.terminal

    def _grant(self, grant: fx.Grant) -> None:
        assert grant.token > max(self.grants, default=-1), "tokens must rise"
        assert FIRST_TOKEN <= grant.token <= self.reserved, "a token outside the reserved block"
        assert grant.job not in self.finished, f"{grant} after its outcome"
        live = self.live.setdefault(grant.job, {})
        assert len(live) == grant.hedge, f"{grant} beside {live}"
        assert not (grant.hedge and grant.alone)
        self.grants[grant.token] = live[grant.token] = grant

    def _ended(self, ended: fx.AttemptEnded) -> None:
        assert ended.token not in self.ended, f"the attempt ended twice: {ended}"
        self.ended[ended.token] = ended
        if ended.token >= FIRST_TOKEN:
            granted = self.live[ended.job].pop(ended.token)
            assert granted.worker == ended.worker
        assert not ended.blamed or (ended.outcome is Outcome.LOST and ended.started is not None)


class Rig:
    """Helpers with the words of the field; every event is followed by a full check."""

    def __init__(self, *, tokens: int = 100_000, seed: int = 1, **changes: Any) -> None:
        self.config = replace(SchedulerConfig(), **changes)
        self.scheduler = Scheduler(self.config, random.Random(seed))
        self.ledger = Ledger()
        self.now = 0.0
        self.progress: dict[str, int] = {}
        self.reserve(FIRST_TOKEN, FIRST_TOKEN + tokens - 1)
        self.do(ev.ModelChanged(MODEL))

    # --- events ------------------------------------------------------------------------

    def do(self, event: ev.Event, at: float | None = None) -> list[fx.Effect]:
        """Hand over one event, check everything, return the effects."""
        if at is not None:
            self.now = at
        effects = self.scheduler.handle(event, self.now)
        for effect in effects:
            self.ledger.take(effect)
        self.scheduler.check_invariants()
        if isinstance(event, ev.Tick):
            due = self.scheduler.next_deadline()
            assert due is None or due > self.now, f"a tick at {self.now} left {due} due"
        return effects

    def reserve(self, first: int, last: int) -> list[fx.Effect]:
        """The store has reserved tokens."""
        self.ledger.reserved = max(self.ledger.reserved, last)
        return self.do(ev.TokensReserved(first, last))

    def join(
        self, key: str, *, slots: int = 2, model: str = MODEL, incarnation: str = "i1"
    ) -> list[fx.Effect]:
        """A worker joins and is ready; `w1#2` is a connection of `w1`."""
        self.progress[key] = 0
        name = key.partition("#")[0]
        joined = self.do(ev.WorkerJoined(key, name, incarnation))
        return joined + self.do(ev.WorkerReady(key, slots, model))

    def accept(self, *jobs: int, deadline: float | None = None) -> list[fx.Effect]:
        """Jobs are durable."""
        return self.do(ev.JobsAccepted(jobs, deadline))

    def beat(self, key: str, *, at: float | None = None, progress: int = 1) -> list[fx.Effect]:
        """A heartbeat, with progress unless told otherwise."""
        self.progress[key] += progress
        stats = self.scheduler.worker_stats(key, self.now)
        event = ev.HeartbeatSeen(key, self.progress[key], stats.held, stats.executing)
        return self.do(event, at)

    def start(self, grant: fx.Grant, at: float | None = None) -> list[fx.Effect]:
        """The worker begins to execute."""
        return self.do(ev.AttemptStarted(grant.worker, grant.job, grant.token), at)

    def succeed(
        self, grant: fx.Grant, at: float | None = None, *, worker: str | None = None,
        model: str = MODEL,
    ) -> list[fx.Effect]:  # fmt: skip
        """The worker answers."""
        worker = worker or grant.worker
        return self.do(ev.ResultArrived(worker, grant.job, grant.token, model), at)

    def fail(
        self, grant: fx.Grant, code: str, at: float | None = None, *, retryable: bool = False
    ) -> list[fx.Effect]:
        """The worker answers with a fault."""
        event = ev.ResultArrived(
            grant.worker, grant.job, grant.token, MODEL, code, f"because of {code}", retryable
        )
        return self.do(event, at)

    def gone(self, key: str, at: float | None = None, *, clean: bool = False) -> list[fx.Effect]:
        """The connection ends."""
        return self.do(ev.WorkerGone(key, "connection reset", clean), at)

    def run_until(self, end: float, *beating: str) -> list[fx.Effect]:
        """Tick whenever a tick is due, while the workers named beat with progress each 0.5 s."""
        effects: list[fx.Effect] = []
        next_beat = self.now + 0.5
        while True:
            due = self.scheduler.next_deadline()
            if beating and next_beat <= end and (due is None or next_beat <= due):
                self.now = next_beat
                for key in beating:
                    effects += self.beat(key)
                next_beat += 0.5
            elif due is not None and due <= end:
                effects += self.do(ev.Tick(), max(self.now, due))
            else:
                self.now = end
                return effects

    # --- questions ---------------------------------------------------------------------

    def state(self, job: int) -> JobState | None:
        """The state of a job without an outcome."""
        found = self.scheduler.state(job)
        return found[0] if found else None

    def counter(self, name: str) -> int:
        """One of the counters."""
        return self.scheduler.counters[name]


def grants(effects: list[fx.Effect]) -> list[fx.Grant]:
    """The grants among effects."""
    return of(effects, fx.Grant)


def of(effects: list[fx.Effect], kind: type[E]) -> list[E]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def only(effects: list[fx.Effect], kind: type[E]) -> E:
    """The one effect of a kind."""
    found = of(effects, kind)
    assert len(found) == 1, found
    return found[0]
