"""The scheduler: `handle(event, now)` returns effects, `next_deadline()` says when to tick.

Owns every decision about jobs without an outcome, leases and workers. Pure:
time and chance come in as arguments, and everything else goes out as effects.
`docs/scheduling.md` tells the rules; each lives in the module of its name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from master.scheduler import clocks, grants, intake, membership, results
from master.scheduler import events as ev
from master.scheduler.board import Board
from master.scheduler.config import SchedulerConfig
from master.scheduler.effects import Effect
from master.scheduler.invariants import check
from master.scheduler.workers import GONE, WorkerStats
from master.states import JobState

Rule = Callable[[Board, Any], None]

RULES: Final[Mapping[type[ev.Event], Rule]] = {
    ev.TokensReserved: intake.tokens_reserved,
    ev.JobsAccepted: intake.jobs_accepted,
    ev.JobRecovered: intake.job_recovered,
    ev.JobsRecovered: intake.jobs_recovered,
    ev.JobsCancelled: intake.jobs_cancelled,
    ev.ShutdownAsked: intake.shutdown_asked,
    ev.WorkerJoined: membership.worker_joined,
    ev.WorkerReady: membership.worker_ready,
    ev.WorkerUnready: membership.worker_unready,
    ev.WorkerGone: membership.worker_gone,
    ev.WorkerDraining: membership.worker_draining,
    ev.DrainWorkerAsked: membership.drain_asked,
    ev.ModelChanged: membership.model_changed,
    ev.HeartbeatSeen: clocks.heartbeat_seen,
    ev.AttemptStarted: results.attempt_started,
    ev.ResultArrived: results.result_arrived,
    ev.LeaseReleased: results.lease_released,
    ev.Tick: lambda board, event: clocks.tick(board),
}


class Scheduler:
    """The pure machine that the core drives."""

    def __init__(self, config: SchedulerConfig, rng: random.Random) -> None:
        self._board = Board(config, rng)

    def handle(self, event: ev.Event, now: float) -> list[Effect]:
        """Take one event at `now` (monotonic seconds; an earlier one than before counts as then).

        Raises `LocalFault` for what the shell may not do: a job number that
        does not rise, a worker's key that is in use.
        """
        board = self._board
        board.now = max(board.now, now)
        RULES[type(event)](board, event)
        clocks.sweep_jobs(board)
        grants.dispatch(board)
        wanted = board.tokens.wanted(board.now)
        if wanted is not None:
            board.say(wanted)
        return board.take_effects()

    def next_deadline(self) -> float | None:
        """When a `Tick` is due; None while nothing is waited for."""
        board = self._board
        dues = [
            board.timers.first(),
            board.jobs.deadlines.first(),
            board.jobs.backoffs.first(),
            board.tokens.next_deadline(),
            self._queue_deadline(),
            board.held_back_until if board.held_back_at is not None else None,
            board.stragglers.next_deadline() if self._has_idle() else None,
        ]
        return min((due for due in dues if due is not None), default=None)

    def _queue_deadline(self) -> float | None:
        jobs = self._board.jobs
        head = jobs.head()
        if head is None:
            return None
        return jobs.accepted_at(head) + self._board.config.queue_ttl_s

    def _has_idle(self) -> bool:
        board = self._board
        return bool(len(board.ranking)) and not board.jobs.queued and not board.stopping

    # --- what the shell reads ----------------------------------------------------------

    def state(self, job: int) -> tuple[JobState, int, str | None, float | None] | None:
        """(state, attempts begun, worker, when it began) of a job without an outcome.

        None for a job that has one or was never here.
        """
        record = self._board.jobs.records.get(job)
        if record is None:
            state = self._board.jobs.state(job)
            return None if state is None else (state, 0, None, None)
        lease = record.primary
        if lease is None:
            return record.state, record.attempts, None, None
        begun = lease.started is not None
        return record.state, record.attempts + begun, lease.worker, lease.started

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that isn't terminal."""
        jobs = self._board.jobs
        return {
            JobState.QUEUED.value: jobs.queued,
            JobState.LEASED.value: jobs.leased,
            JobState.BACKOFF.value: len(jobs.backoffs),
        }

    def queued_jobs(self) -> Iterator[int]:
        """Queued jobs in order of dispatch; not to be kept over an event."""
        return self._board.jobs.queued_jobs()

    def live_jobs(self) -> list[int]:
        """Jobs that are leased or in backoff, in no order."""
        records = self._board.jobs.records.values()
        return [record.job for record in records if record.state is not JobState.QUEUED]

    def is_live(self, token: int) -> bool:
        """Whether a lease with this token is in force."""
        return token in self._board.leases

    def worker_stats(self, worker: str, now: float) -> WorkerStats:
        """What people see of a connection; one that isn't here looks gone."""
        found = self._board.workers.get(worker)
        if found is None:
            return GONE
        return WorkerStats(
            liveness=found.detector.liveness,
            admission=found.admission,
            ready=found.ready,
            slots=found.slots,
            held=len(found.leases),
            executing=found.executing,
            rate_per_s=found.rate.per_s,
            completed=found.completed,
            errored=found.errored,
            stale=found.stale,
            blamed_deaths=self._board.deaths.get(found.name, 0),
            phi=found.detector.phi(now),
        )

    @property
    def counters(self) -> dict[str, int]:
        """Everything counted since the start (`board.COUNTERS`)."""
        return dict(self._board.counters)

    def eta_s(self) -> float | None:
        """Seconds until the working workers are through with everything; None without any."""
        board = self._board
        rate_per_s = board.ranking.rate_per_s
        if rate_per_s < 1e-9:
            return None
        return (board.jobs.queued + board.jobs.leased) / rate_per_s

    def check_invariants(self) -> None:
        """Raise `LocalFault` if any part of the state contradicts another; for tests, O(n)."""
        check(self._board)
