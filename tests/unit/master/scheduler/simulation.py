"""Workers and a network on made-up time, around the real scheduler: a discrete-event simulation."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from master.scheduler import effects as fx
from master.scheduler import events as ev
from tests.unit.master.scheduler.rig import MODEL, Rig

HEARTBEAT_S = 0.5
LATENCY_S = 0.002


@dataclass(slots=True, eq=False)
class SimWorker:
    """One process: `width` leases executed at once, each for what `service_s()` draws."""

    name: str
    service_s: Callable[[], float]
    width: int = 1
    slots: int = 4
    number: int = 0
    alive: bool = False
    stopped_until: float = 0.0
    progress: int = 0
    waiting: deque[fx.Grant] = field(default_factory=deque)
    executing: dict[int, fx.Grant] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its present connection."""
        return f"{self.name}#{self.number}"


class Simulation:
    """A cluster; `run` ends when every job has its outcome and says when that was."""

    def __init__(self, rig: Rig, workers: list[SimWorker], seed: int = 1) -> None:
        self.rig = rig
        self.workers = {worker.name: worker for worker in workers}
        self.rng = random.Random(seed)
        self._serial = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        for worker in workers:
            self.join(worker)

    # --- the agenda --------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something then."""
        heapq.heappush(self._agenda, (when, next(self._serial), action))

    def run(self, jobs: int, until: float = 10_000.0) -> float:
        """Submit `jobs`, live until all have an outcome, and return the time of the last."""
        began = self.rig.now
        self.tell(ev.JobsAccepted(range(1, jobs + 1)))
        while len(self.rig.ledger.finished) < jobs:
            assert self.rig.now < until, self.rig.scheduler.counts()
            due = self.rig.scheduler.next_deadline()
            if due is not None and due < self._agenda[0][0]:
                self.rig.now = max(self.rig.now, due)
                self.tell(ev.Tick())
                continue
            when, _, action = heapq.heappop(self._agenda)
            self.rig.now = max(self.rig.now, when)
            action()
        return self.rig.now - began

    def tell(self, event: ev.Event) -> None:
        """An event reaches the scheduler; its effects reach the workers a little later."""
        for effect in self.rig.do(event):
            if isinstance(effect, (fx.Grant, fx.Revoke)):
                worker = self.workers[effect.worker.partition("#")[0]]
                self._later(worker, lambda w=worker, e=effect: self._receive(w, e))
            elif isinstance(effect, fx.DropWorker):
                raise AssertionError(effect)

    def _later(
        self, worker: SimWorker, action: Callable[[], None], delay_s: float = LATENCY_S
    ) -> None:
        """Do something on the worker's side, unless it has died by then; after it, if stopped."""
        key = worker.key

        def act() -> None:
            if not worker.alive or worker.key != key:
                return
            if self.rig.now < worker.stopped_until:
                self.at(worker.stopped_until, act)
                return
            action()

        self.at(self.rig.now + delay_s, act)

    def _send(self, worker: SimWorker, event: ev.Event) -> None:
        self.at(self.rig.now + LATENCY_S, lambda: self.tell(event))

    # --- workers -----------------------------------------------------------------------

    def join(self, worker: SimWorker) -> None:
        """A fresh process joins."""
        worker.number += 1
        worker.alive = True
        worker.waiting.clear()
        worker.executing.clear()
        self.tell(ev.WorkerJoined(worker.key, worker.name, f"i{worker.number}"))
        self.tell(ev.WorkerReady(worker.key, worker.slots, MODEL))
        self._later(worker, lambda: self._beat(worker))

    def kill(self, worker: SimWorker, back_after_s: float) -> None:
        """kill -9; a supervisor starts it again."""
        if not worker.alive:
            return
        worker.alive = False
        self._send(worker, ev.WorkerGone(worker.key, "connection reset"))
        self.at(self.rig.now + back_after_s, lambda: self.join(worker))

    def stop(self, worker: SimWorker, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        worker.stopped_until = self.rig.now + seconds

    def _beat(self, worker: SimWorker) -> None:
        held = len(worker.waiting) + len(worker.executing)
        event = ev.HeartbeatSeen(worker.key, worker.progress, held, len(worker.executing))
        self._send(worker, event)
        self._later(worker, lambda: self._beat(worker), HEARTBEAT_S)

    def _receive(self, worker: SimWorker, effect: fx.Grant | fx.Revoke) -> None:
        if isinstance(effect, fx.Revoke):
            kept = [grant for grant in worker.waiting if grant.token != effect.token]
            worker.waiting = deque(kept)
        else:
            worker.waiting.append(effect)
        self._begin(worker)

    def _begin(self, worker: SimWorker) -> None:
        while worker.waiting and len(worker.executing) < worker.width:
            lone = any(grant.alone for grant in worker.executing.values())
            if lone or (worker.waiting[0].alone and worker.executing):
                return
            grant = worker.waiting.popleft()
            worker.executing[grant.token] = grant
            self._send(worker, ev.AttemptStarted(worker.key, grant.job, grant.token))
            service_s = worker.service_s()
            self._later(worker, lambda g=grant: self._finish(worker, g), service_s)

    def _finish(self, worker: SimWorker, grant: fx.Grant) -> None:
        del worker.executing[grant.token]
        worker.progress += 1
        self._send(worker, ev.ResultArrived(worker.key, grant.job, grant.token, MODEL))
        self._begin(worker)
