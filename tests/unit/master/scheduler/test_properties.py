"""Whatever happens in whatever order: the promises hold, and nothing accepted is ever lost."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from master.scheduler import effects as fx
from master.scheduler import events as ev
from master.states import Admission, Liveness
from tests.unit.master.scheduler.rig import FIRST_TOKEN, MODEL, Rig, grants, of

NAMES = ("w1", "w2", "w3", "w4")
ROUNDS_MAX = 5_000


class SchedulerMachine(RuleBasedStateMachine):
    """Workers that join, work, lie, hang and die; people who submit and cancel; a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(
            tokens=40,
            queue_ttl_s=500.0,
            progress_timeout_s=4.0,
            attempt_timeout_s=90.0,
            faults_in_a_row_max=2,
            poison_deaths=2,
        )
        self.keys: dict[str, str] = {}
        self.incarnations: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.next_key = 0
        self.next_job = 1
        self.accepted: set[int] = set()
        self.model = MODEL
        self.asked: list[int] = []

    # --- helpers -----------------------------------------------------------------------

    def _do(self, event: ev.Event) -> list[fx.Effect]:
        effects = self.rig.do(event)
        for effect in effects:
            if isinstance(effect, fx.ReserveTokens):
                self.asked.append(effect.last)
            elif isinstance(effect, fx.DropWorker):
                self.keys = {n: k for n, k in self.keys.items() if k != effect.worker}
        dropped = [e.worker for e in of(effects, fx.DropWorker)]
        for key in dropped:
            effects += self._do(ev.WorkerGone(key, "dropped"))
        return effects

    def _advance(self, to: float) -> None:
        while (due := self.rig.scheduler.next_deadline()) is not None and due <= to:
            self.rig.now = max(self.rig.now, due)
            self._do(ev.Tick())
        self.rig.now = max(self.rig.now, to)

    def _key(self, data: st.DataObject) -> str:
        return self.keys[data.draw(st.sampled_from(sorted(self.keys)))]

    def _any_grant(self, data: st.DataObject) -> fx.Grant:
        recent = list(self.rig.ledger.grants.values())[-12:]
        return data.draw(st.sampled_from(recent))

    def _live(self) -> list[fx.Grant]:
        return [g for live in self.rig.ledger.live.values() for g in live.values()]

    def _sender(self, grant: fx.Grant) -> str | None:
        return self.keys.get(grant.worker.partition("#")[0])

    # --- jobs --------------------------------------------------------------------------

    @rule(count=st.integers(1, 6), skip=st.integers(0, 2), ttl=st.sampled_from([None, 0.0, 5.0]))
    def accept(self, count: int, skip: int, ttl: float | None) -> None:
        first = self.next_job + skip
        jobs = list(range(first, first + count))
        self.next_job = first + count
        self.accepted |= set(jobs)
        self._do(ev.JobsAccepted(jobs, None if ttl is None else self.rig.now + ttl))

    @rule(attempts=st.integers(0, 6), blames=st.integers(0, 2), dies=st.booleans())
    def recover(self, attempts: int, blames: int, dies: bool) -> None:
        deadline = self.rig.now + 3.0 if dies else None
        self._do(ev.JobRecovered(self.next_job, attempts, ["w1"] * min(blames, 1 + dies), deadline))
        self.accepted.add(self.next_job)
        self.next_job += 1

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        jobs = data.draw(st.lists(st.sampled_from(sorted(self.accepted)[-15:]), max_size=3))
        self._do(ev.JobsCancelled(jobs, "asked"))

    # --- workers -----------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), slots=st.integers(1, 4), same=st.booleans())
    def join(self, name: str, slots: int, same: bool) -> None:
        if name in self.keys:
            self._do(ev.WorkerGone(self.keys.pop(name), "joined again"))
        self.incarnations[name] += not same
        self.next_key += 1
        key = self.keys[name] = f"{name}#{self.next_key}"
        self.rig.progress[key] = 0
        self._do(ev.WorkerJoined(key, name, str(self.incarnations[name])))
        self._do(ev.WorkerReady(key, slots, self.model))

    @precondition(lambda self: self.keys)
    @rule(data=st.data(), clean=st.booleans())
    def leave(self, data: st.DataObject, clean: bool) -> None:
        key = self._key(data)
        del self.keys[key.partition("#")[0]]
        self._do(ev.WorkerGone(key, "gone", clean))

    @precondition(lambda self: self.keys)
    @rule(data=st.data(), asked=st.booleans())
    def drain(self, data: st.DataObject, asked: bool) -> None:
        key = self._key(data)
        self._do(ev.DrainWorkerAsked(key, "asked") if asked else ev.WorkerDraining(key))

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def unready(self, data: st.DataObject) -> None:
        self._do(ev.WorkerUnready(self._key(data)))

    @rule(data=st.data())
    def change_model(self, data: st.DataObject) -> None:
        self.model = data.draw(st.sampled_from([MODEL, "m2"]))
        self._do(ev.ModelChanged(self.model))
        for key in self.keys.values():
            if data.draw(st.booleans()):
                self._do(ev.WorkerReady(key, 2, self.model))

    @precondition(lambda self: self.keys)
    @rule(data=st.data(), progress=st.integers(0, 1), executing=st.integers(0, 2))
    def beat(self, data: st.DataObject, progress: int, executing: int) -> None:
        key = self._key(data)
        self.rig.progress[key] += progress
        self._do(ev.HeartbeatSeen(key, self.rig.progress[key], executing, executing))

    # --- work --------------------------------------------------------------------------

    @precondition(lambda self: self.rig.ledger.grants)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        grant = self._any_grant(data)
        self._do(ev.AttemptStarted(grant.worker, grant.job, grant.token))

    @precondition(lambda self: self.rig.ledger.grants)
    @rule(data=st.data(), code=st.sampled_from([None, None, "not_an_image", "engine_error"]))
    def answer(self, data: st.DataObject, code: str | None) -> None:
        """Right, late, again, on the old connection or on a new one."""
        grant = self._any_grant(data)
        sender = self._sender(grant) if data.draw(st.booleans()) else grant.worker
        model = data.draw(st.sampled_from([self.model, MODEL]))
        retryable = code == "engine_error"
        if sender is not None:
            self._do(ev.ResultArrived(sender, grant.job, grant.token, model, code, "x", retryable))

    @precondition(lambda self: self._live())
    @rule(data=st.data(), newest=st.booleans(), code=st.sampled_from([None, None, "engine_error"]))
    def work(self, data: st.DataObject, newest: bool, code: str | None) -> None:
        """An honest worker does what it was given."""
        live = sorted(self._live(), key=lambda grant: grant.token)
        grant = live[-1] if newest else data.draw(st.sampled_from(live))
        self.rig.start(grant)
        self._do(
            ev.ResultArrived(
                grant.worker, grant.job, grant.token, self.model, code, "x", retryable=bool(code)
            )
        )

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def die_of_it(self, data: st.DataObject) -> None:
        """The process dies while it executes."""
        grant = data.draw(st.sampled_from(self._live()))
        self.rig.start(grant)
        self.keys.pop(grant.worker.partition("#")[0])
        self._do(ev.WorkerGone(grant.worker, "killed"))

    @precondition(lambda self: self._live())
    @rule(data=st.data(), others_beat=st.booleans())
    def hang(self, data: st.DataObject, others_beat: bool) -> None:
        """The process beats, and stands still, while others may go on."""
        grant = data.draw(st.sampled_from(self._live()))
        self.rig.start(grant)
        for _ in range(10):
            self._advance(self.rig.now + 0.5)
            for key in self.keys.values():
                if key == grant.worker or others_beat:
                    self.rig.progress[key] += key != grant.worker
                    self._do(ev.HeartbeatSeen(key, self.rig.progress[key], 1, 1))

    @precondition(lambda self: self.keys)
    @rule(data=st.data(), job=st.integers(0, 40), token=st.integers(0, FIRST_TOKEN + 60))
    def forge(self, data: st.DataObject, job: int, token: int) -> None:
        key = self._key(data)
        self._do(ev.ResultArrived(key, job, token, self.model))
        self._do(ev.AttemptStarted(key, job, token))
        self._do(ev.LeaseReleased(key, job, token))

    @precondition(lambda self: self.rig.ledger.grants)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        grant = self._any_grant(data)
        self._do(ev.LeaseReleased(grant.worker, grant.job, grant.token))

    # --- time and tokens ---------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 2.0, 5.0, 30.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self._advance(self.rig.now + seconds)

    @rule(seconds=st.sampled_from([0.5, 3.0, 40.0]))
    def oversleep(self, seconds: float) -> None:
        self.rig.now += seconds
        self._do(ev.Tick())

    @precondition(lambda self: self.asked)
    @rule()
    def reserve(self) -> None:
        last = self.asked.pop()
        self.rig.ledger.reserved = max(self.rig.ledger.reserved, last)
        self._do(ev.TokensReserved(last, last))

    # --- promises ----------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.rig.scheduler.check_invariants()

    @invariant()
    def every_job_is_here_or_over(self) -> None:
        here = {job for job in self.accepted if self.rig.scheduler.state(job) is not None}
        over = set(self.rig.ledger.finished)
        assert here | over == self.accepted
        assert not here & over

    @invariant()
    def every_open_job_has_a_deadline(self) -> None:
        if sum(self.rig.scheduler.counts().values()):
            assert self.rig.scheduler.next_deadline() is not None

    def teardown(self) -> None:
        """All faults end and one healthy worker comes: everything gets its outcome."""
        for key in list(self.keys.values()):
            self._do(ev.WorkerGone(key, "the end of faults"))
        self._do(ev.ModelChanged(MODEL))
        self._do(ev.TokensReserved(10_000, 1_000_000))
        self.rig.ledger.reserved = 1_000_000
        todo = grants(self.rig.join("healthy#1", slots=3, incarnation="h"))
        for _ in range(ROUNDS_MAX):
            todo += grants(self.rig.beat("healthy#1"))
            while todo:
                grant = todo.pop()
                self.rig.start(grant)
                todo += grants(self.rig.succeed(grant))
            if not sum(self.rig.scheduler.counts().values()):
                break
            todo += grants(self.rig.run_until(self.rig.now + 0.4))
        assert set(self.rig.ledger.finished) == self.accepted
        assert not any(self.rig.ledger.live.values())
        stats = self.rig.scheduler.worker_stats("healthy#1", self.rig.now)
        assert stats.liveness is Liveness.ALIVE and stats.admission is Admission.ACCEPTING


TestScheduler: Any = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
