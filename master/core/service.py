"""The core itself: feeds the pure scheduler, carries out its effects, keeps one timer.

Everything here runs on one event loop. Whatever may block (the store's
writer, reads for people, images and weights from disk) runs elsewhere and
comes back as a callback.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import Any, TypeVar

from master.config import CoreConfig
from master.core.clients import ClientSession
from master.core.clock import Clock
from master.core.desk import Desk
from master.core.dispatch import Dispatch
from master.core.durable import Durable
from master.core.housekeeping import Housekeeping
from master.core.hub import Hub
from master.core.intake import Intake, IntakeHost
from master.core.journal import Ended, Journal
from master.core.ledger import Ledger
from master.core.metrics import MetricsText
from master.core.names import job_id
from master.core.pace import Pace, waited_s
from master.core.rates import Percentiles, RateMeter
from master.core.reading import Reading
from master.core.recent import Recent
from master.core.roster import Roster
from master.core.views import Views
from master.core.waiters import Waiter, Waiters
from master.core.weights import WeightsService
from master.core.window import Window
from master.core.workers import WorkerSession, result_event
from master.logs import fields
from master.models.resolve import Resolved
from master.models.weights import WeightsFile
from master.scheduler import Scheduler, SchedulerConfig
from master.scheduler import effects as fx
from master.scheduler import events as ev
from master.states import JobState
from master.store.base import JobStore, KeyRow, Unfinished
from wire.aio import Connection
from wire.messages import (
    Accepted,
    Drain,
    FetchWeights,
    JobView,
    Message,
    Model,
    Result,
    Stale,
    Submitted,
)

log = logging.getLogger("lookout.core")

TOKENS_RESERVED = 1_000_000
RECOVERED_PER_STEP = 2_000
T = TypeVar("T")


def batched(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Lists of `count` items, the last one shorter (itertools has it from Python 3.12)."""
    rest = iter(items)
    while batch := list(islice(rest, count)):
        yield batch


class Core:
    """All scheduling state of one master, and the peers that it talks to."""

    def __init__(self, config: CoreConfig, store: JobStore, model: Resolved) -> None:
        self.config = config
        self.store = store
        self.clock = Clock.start()
        self.loop = asyncio.get_running_loop()
        self.totals = store.totals()
        self.stopping = asyncio.Event()
        self.quiet = asyncio.Event()
        self.draining: str | None = None
        limits = config.limits
        # Two pools: people's reads must not stand in the way of dispatch.
        self._read_pool = ThreadPoolExecutor(2, thread_name_prefix="read")
        self._image_pool = ThreadPoolExecutor(
            limits.image_reads_at_once_max, thread_name_prefix="image"
        )
        self.scheduler = Scheduler(_scheduler_config(config), random.Random())
        self.roster = Roster(self.scheduler, self.clock.now, limits.gone_workers_kept_max)
        self.durable = Durable(self.loop)
        self.ledger = Ledger()
        self.window = Window(limits.window_bytes_max)
        self.waiters = Waiters(self.loop, limits.waiters_max)
        self.views = Views(self.scheduler, self.roster.name_of, self.clock.to_wall)
        self.recent = Recent(self.views, limits.recent_jobs_max)
        self.reading = Reading(store, self.scheduler, self.views, self.recent, self._read_pool)
        self.hub = Hub(self.totals.epoch, limits.events_kept_max, self.reading.jobs)
        self.journal = Journal(
            store, self.durable, self.clock, self.roster.name_of, self._job_ended
        )
        self.dispatch = Dispatch(
            store,
            self.window,
            self._image_pool,
            self.roster.sessions,
            self.feed,
            self.scheduler.queued_jobs,
            self.ledger.size_bytes,
        )
        self.weights = WeightsService(self._image_pool)
        self.drained = RateMeter(self.clock.now())
        self.accepted = RateMeter(self.clock.now())
        self.latency_ms = Percentiles()
        self.pace = Pace()
        self.ended_counts = {
            state.value: self.totals.counts.get(state.value, 0)
            for state in JobState
            if state.terminal
        }
        self.intake = Intake(
            store,
            self.durable,
            self.clock,
            limits,
            self.totals,
            self.ledger,
            self.window,
            self._intake_host(),
        )
        self.desk = Desk(self)
        self.house = Housekeeping(self)
        self.metrics_text = MetricsText(self.desk.reading_now)
        self._clients = 0
        self._events: deque[ev.Event] = deque()
        self._feeding = False
        self._arming = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self.serve_model(model)

    # --- the scheduler and its timer ------------------------------------------------

    def feed(self, event: ev.Event) -> None:
        """Hand an event to the scheduler and carry out what it says, in order."""
        self._events.append(event)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._events:
                now = self.clock.now()
                for effect in self.scheduler.handle(self._events.popleft(), now):
                    _CARRY_OUT[type(effect)](self, effect)
        finally:
            self._feeding = False
        if self.draining is not None and not self.scheduler.counts()["leased"]:
            self.quiet.set()
        if not self._arming:
            # Once a turn of the loop, not once an event: a read brings many.
            self._arming = True
            self.loop.call_soon(self._arm)

    def _arm(self) -> None:
        self._arming = False
        due = self.scheduler.next_deadline()
        if due is None or (self._timer is not None and due >= self._timer_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self.loop.call_later(max(0.0, due - self.clock.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        self.feed(ev.Tick())

    # --- effects ------------------------------------------------

    def _reserve_tokens(self, effect: fx.ReserveTokens) -> None:
        def reserved(done: Any) -> None:
            if done.exception() is None:
                self.feed(ev.TokensReserved(effect.last, effect.last))
            else:
                log.error(**fields("tokens_not_reserved", error=repr(done.exception())))

        self.durable.then(self.store.reserve_tokens(effect.last), reserved)

    def _answer_stale(self, effect: fx.AnswerStale) -> None:
        self.journal.release(effect.job, effect.token)
        session = self.roster.sessions.get(effect.worker)
        if session is not None:
            job = job_id(effect.job)
            session.send(Stale(job=job, token=effect.token, reason=effect.reason))
            log.info(
                **fields(
                    "result_stale",
                    job=job,
                    token=effect.token,
                    worker=session.name,
                    reason=effect.reason,
                )
            )

    def _job_changed(self, effect: fx.JobChanged) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                **fields(
                    "job_changed",
                    job=effect.job,
                    change=f"{effect.source}→{effect.target}",
                    worker=effect.worker,
                    attempts=effect.attempts,
                    reason=effect.reason,
                )
            )
        self.hub.job_changed(effect.job)

    def _liveness_changed(self, effect: fx.LivenessChanged) -> None:
        log.warning(
            **fields(
                "worker_liveness",
                worker=effect.worker,
                change=f"{effect.source}→{effect.target}",
                phi=effect.phi,
                reason=effect.reason,
            )
        )
        session = self.roster.sessions.get(effect.worker)
        if session is not None:
            self.worker_changed(session)

    def _ask_drain(self, effect: fx.AskDrain) -> None:
        session = self.roster.sessions.get(effect.worker)
        if session is not None:
            session.send(Drain(reason=effect.reason))

    def _drop_worker(self, effect: fx.DropWorker) -> None:
        session = self.roster.sessions.get(effect.worker)
        if session is not None:
            session.drop(effect.reason)

    # --- outcomes ------------------------------------------------

    def result(self, session: WorkerSession, result: Result) -> None:
        """A worker's answer: hold the content, let the scheduler decide, answer."""
        event = result_event(session.key, result)
        self.journal.hold(result)
        self.feed(event)
        if self.journal.release(event.job, event.token):
            # It ended an attempt, not the job (a retryable fault): nothing to wait for.
            session.send(Accepted(job=result.job, token=result.token))

    def _job_ended(self, ended: Ended) -> None:
        end = ended.end
        now = self.clock.now()
        self.recent.ended(end)
        age_ms = self.ledger.take(end.job, now)
        if age_ms is not None:
            self.latency_ms.add(age_ms)
            self.pace.ended(waited_s(ended, age_ms / 1000.0, self.clock.wall()))
            if not self.ledger.jobs:
                self.pace.idle()
            self.store.be_patient(self.pace.patience_s)
            self.metrics_text.latency.observe(age_ms / 1000.0)
        self.window.take(end.job)
        self.drained.add(now)
        self.ended_counts[end.state.value] += 1
        if end.token is not None and ended.connection is not None:
            session = self.roster.sessions.get(ended.connection)
            if session is not None:
                session.send(Accepted(job=job_id(end.job), token=end.token))
        self.waiters.ended(end.job)
        self.hub.job_changed(end.job)

    def recount(self, removed: list[int]) -> None:
        """Jobs were deleted: the counts of ended ones come from the store again."""
        self.recent.forget(removed)
        counts = self.store.totals().counts
        for state in self.ended_counts:
            self.ended_counts[state] = counts.get(state, 0)

    # --- workers ------------------------------------------------

    def model_id(self) -> str:
        """The id of the card in force."""
        return self.model.card.id

    def serve_model(self, model: Resolved) -> None:
        """Serve this model to workers from now on."""
        self.model = model
        self.weights.offer(WeightsFile(model.path, model.card))

    def swap_model(self, model: Resolved) -> None:
        """Move the cluster: workers load it and go on; what they hold ends under the old one."""
        before = self.model.card.id
        self.serve_model(model)
        log.info(**fields("model_changed", change=f"{before}→{model.card.id}", source=model.source))
        self.feed(ev.ModelChanged(model.card.id))
        for session in self.roster.sessions.values():
            session.send(Model(card=model.card))
            self.worker_changed(session)
        self.hub.publish("model", {"id": model.card.id})

    def now(self) -> float:
        """The core's clock, monotonic seconds."""
        return self.clock.now()

    def send_again(self, grant: fx.Grant) -> None:
        """The `Assign` of this grant may not have arrived: send it again if the lease lives."""
        if self.scheduler.is_live(grant.token):
            self.dispatch.grant(grant)

    def fetch_weights(self, session: WorkerSession, request: FetchWeights) -> None:
        """Answer with a slice of the weights file."""
        self.weights.fetch(session, request)

    def worker_joined(self, connection: Connection) -> WorkerSession:
        """A worker passed the handshake."""
        key = self.roster.key_for(connection.hello.name)
        session = WorkerSession(key, connection, self, self.clock.wall())
        for older in self.roster.named(session.name):
            older.drop("the worker has joined again")
        self.feed(ev.WorkerJoined(key, session.name, session.incarnation))
        self.roster.add(session)
        log.info(
            **fields(
                "worker_joined",
                worker=session.name,
                incarnation=session.incarnation,
                address=session.address,
            )
        )
        session.send(Model(card=self.model.card))
        self.worker_changed(session)
        return session

    def worker_left(self, session: WorkerSession, reason: str) -> None:
        """A worker's connection ended."""
        log.info(**fields("worker_left", worker=session.name, clean=session.clean, reason=reason))
        self.roster.remove(session)
        self.weights.forget(session)
        self.feed(ev.WorkerGone(session.key, reason, session.clean))
        self.hub.publish("workers", {"changed": session.name})

    def worker_changed(self, session: WorkerSession) -> None:
        """Something that people see of the worker changed."""
        self.hub.publish("worker", self.roster.view(session))

    # --- web connections (see `clients.ClientHost`) ---------------------------------------------

    def client_joined(self, connection: Connection) -> ClientSession:
        """A web or admin connection passed the handshake."""
        self._clients += 1
        return ClientSession(self._clients, connection, self.desk)

    def wait(self, jobs: list[int], timeout_s: float, done: Callable[[], None]) -> Waiter | None:
        """Call `done` when all jobs have ended or time is up; None if that was at once."""
        open_jobs = {job for job in jobs if job in self.ledger}
        waiter = self.waiters.wait(open_jobs, timeout_s, done)
        return waiter if waiter.timer is not None else None

    # --- intake ------------------------------------------------

    def _intake_host(self) -> IntakeHost:
        return IntakeHost(
            accepted=self._jobs_accepted,
            cancel=lambda jobs, reason: self.feed(ev.JobsCancelled(jobs, reason)),
            replay=self._replay,
            drain_rate=lambda: self.drained.per_second(self.clock.now()),
            queued=lambda: self.scheduler.counts()["queued"],
            gather_s=lambda: self.pace.gather_s,
            refusing=lambda: self.draining,
        )

    def _jobs_accepted(self, jobs: list[int], views: list[JobView], deadline: float | None) -> None:
        self.recent.accepted(jobs, views)
        self.accepted.add(self.clock.now(), len(jobs))
        for job in jobs:
            self.hub.job_changed(job)
        self.feed(ev.JobsAccepted(jobs, deadline))

    def _replay(self, request: int, known: KeyRow, reply: Callable[[Message], None]) -> None:
        async def answer() -> None:
            views = await self.reading.jobs(
                await self.reading.run(lambda: self.store.submission_jobs(known.submission))
            )
            submission = f"s{known.submission}"
            reply(Submitted(request=request, submission=submission, jobs=views, replayed=True))

        self.house.spawn(answer())

    # --- life ------------------------------------------------

    async def start(self) -> None:
        """Reserve tokens, put unfinished jobs back, begin the housekeeping."""
        first = self.totals.next_token
        last = first + TOKENS_RESERVED - 1
        await self.durable.result(self.store.reserve_tokens(last))
        self.feed(ev.TokensReserved(first, last))
        self.feed(ev.ModelChanged(self.model_id()))
        recovered = 0
        for jobs in batched(self.store.unfinished(), RECOVERED_PER_STEP):
            self._recover(jobs)
            recovered += len(jobs)
            await asyncio.sleep(0)
        log.info(**fields("recovered", jobs=recovered, epoch=self.totals.epoch))
        self.house.start()

    def _recover(self, jobs: Sequence[Unfinished]) -> None:
        """Queue jobs of an earlier life again; those without a history many at a time."""
        now = self.clock.now()
        for plain, group in groupby(jobs, key=lambda job: job.plain):
            found = list(group)
            for job in found:
                self.ledger.add(job.job, job.size_bytes, now)
            if plain:
                self.feed(ev.JobsRecovered([job.job for job in found]))
                continue
            for job in found:
                deadline = None
                if job.deadline_at is not None:
                    deadline = self.clock.to_monotonic(job.deadline_at)
                self.feed(ev.JobRecovered(job.job, job.attempts, job.blamed, deadline))

    def shut_down(self, reason: str) -> None:
        """Drain: unready, no grants, then `stopping` when nothing executes or time is up."""
        if self.draining is None:
            log.info(**fields("draining", reason=reason))
            self.draining = f"the master is shutting down ({reason})"
            self.feed(ev.ShutdownAsked())
            self.house.spawn(self.house.drain())

    async def close(self) -> None:
        """After the connections are closed: stop the timer and the pools, flush the store."""
        if self._timer is not None:
            self._timer.cancel()
        await self.house.stop()
        self._read_pool.shutdown(wait=False, cancel_futures=True)
        self._image_pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.store.close)


def _scheduler_config(config: CoreConfig) -> SchedulerConfig:
    return SchedulerConfig(
        heartbeat_interval_s=config.heartbeat_interval_s, lease_ttl_s=config.lease_ttl_s
    )


_CARRY_OUT: dict[type[fx.Effect], Callable[[Core, Any], None]] = {
    fx.ReserveTokens: Core._reserve_tokens,
    fx.Grant: lambda core, effect: core.dispatch.grant(effect),
    fx.Revoke: lambda core, effect: core.dispatch.revoke(effect),
    fx.Finish: lambda core, effect: core.journal.finish(effect),
    fx.AnswerStale: Core._answer_stale,
    fx.AttemptEnded: lambda core, effect: core.journal.attempt(effect),
    fx.JobChanged: Core._job_changed,
    fx.LivenessChanged: Core._liveness_changed,
    fx.AskDrain: Core._ask_drain,
    fx.DropWorker: Core._drop_worker,
}
