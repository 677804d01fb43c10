"""What must hold of the whole state after every event. Tests call it; it costs O(n)."""

from __future__ import annotations

import math
from collections import Counter

from master.scheduler.board import Board
from master.scheduler.jobs import JobRecord
from master.scheduler.workers import Worker
from master.states import JobState, Liveness
from wire.errors import LocalFault


def check(board: Board) -> None:
    """Raise `LocalFault` with what is wrong."""
    for record in board.jobs.records.values():
        _check_record(board, record)
    for worker in board.workers.values():
        _check_worker(board, worker)
    _check_queue(board)
    _check_leases(board)
    _check_sums(board)
    _check_nothing_lost(board)


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise LocalFault(f"broken invariant: {what}")


def _check_record(board: Board, record: JobRecord) -> None:
    jobs, job = board.jobs, record.job
    hedges = sum(lease.hedge for lease in record.leases)
    _demand(len(record.leases) - hedges <= 1, f"job {job} has two primary leases")
    _demand(hedges <= 1, f"job {job} has two hedges")
    _demand(not record.state.terminal, f"job {job} is {record.state} and still here")
    leased = record.state is JobState.LEASED
    _demand(leased == bool(record.leases), f"job {job} is {record.state} with {record.leases}")
    _demand((record.state is JobState.QUEUED) == (job in jobs.returned), f"job {job} and the queue")
    backing_off = record.state is JobState.BACKOFF
    _demand(backing_off == (jobs.backoffs.get(job) is not None), f"job {job} has no backoff")
    _demand(job not in jobs.fresh, f"job {job} is fresh and has a record")
    _demand(len(record.blamed) < board.config.poison_deaths_max, f"job {job} is poison")


def _check_worker(board: Board, worker: Worker) -> None:
    key = worker.key
    begun = sum(lease.started is not None for lease in worker.leases.values())
    _demand(worker.executing == begun, f"{key} executes {worker.executing}, not {begun}")
    dead = worker.detector.liveness is Liveness.DEAD
    _demand(not (dead and worker.leases), f"{key} is dead and holds leases")
    due = worker.next_deadline(board.config)
    _demand(worker.timer_at <= due, f"{key} is looked at at {worker.timer_at}, due at {due}")
    armed = board.timers.get(key)
    _demand((armed or math.inf) == worker.timer_at, f"{key} has a timer at {armed}")
    _demand((worker.entry is not None) == worker.open, f"{key} is ranked and not open")


def _check_queue(board: Board) -> None:
    jobs = board.jobs
    queued = list(jobs.queued_jobs())
    _demand(queued == sorted(set(queued)), "the queue is out of order")
    _demand(len(queued) == jobs.queued, f"the queue counts {jobs.queued}, has {len(queued)}")
    _demand(jobs.head() == (queued[0] if queued else None), "the head of the queue")
    gone = [job for job in jobs.deadlines if jobs.state(job) is None]
    _demand(not gone, f"jobs {gone} are over and have deadlines")
    states = Counter(record.state for record in jobs.records.values())
    _demand(states[JobState.LEASED] == jobs.leased, "the count of leased jobs")
    _demand(states[JobState.BACKOFF] == len(jobs.backoffs), "the count of jobs in backoff")


def _check_leases(board: Board) -> None:
    by_job = {lease.token for r in board.jobs.records.values() for lease in r.leases}
    by_worker = {token for worker in board.workers.values() for token in worker.leases}
    _demand(by_job == by_worker == set(board.leases), "a lease stands in one table only")
    for token, lease in board.leases.items():
        _demand(token == lease.token < board.tokens.next, f"token {token} was never given")
        _demand(lease.worker in board.workers, f"lease {token} of a worker that is gone")


def _check_sums(board: Board) -> None:
    ranking = board.ranking
    working = [worker for worker in board.workers.values() if worker.working]
    rate_per_s = sum(worker.rate.per_s for worker in working)
    _demand(math.isclose(ranking.rate_per_s, rate_per_s, abs_tol=1e-6), "the sum of rates")
    _demand(ranking.used == sum(worker.used for worker in working), "the sum of used slots")
    _demand(len(ranking) == sum(worker.open for worker in working), "the count of open workers")


def _check_nothing_lost(board: Board) -> None:
    counters, jobs = board.counters, board.jobs
    came = counters["accepted"] + counters["recovered"]
    ended = counters["succeeded"] + counters["failed"] + counters["cancelled"]
    here = jobs.queued + jobs.leased + len(jobs.backoffs)
    _demand(came == ended + here, f"{came} jobs came, {ended} ended, {here} are here")
