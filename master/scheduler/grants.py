"""Dispatch: the next job to the worker that finishes it first, and hedges to the idle.

Runs after every event. Promises tokens from the reserved block only, at most
two live leases a job, no grant to a worker that isn't ready, alive, accepting
and open, and none at all once the core drains.
"""

from __future__ import annotations

from master.scheduler.board import Board
from master.scheduler.effects import Grant, JobChanged
from master.scheduler.jobs import JobRecord
from master.scheduler.leases import Lease
from master.scheduler.workers import Worker
from master.states import JobState, Liveness

NO_NAMES: tuple[str, ...] = ()


def dispatch(board: Board) -> None:
    """Grant what can be granted now."""
    waiting_since, board.held_back_at = board.held_back_at, None
    if board.stopping:
        return
    ranking, jobs = board.ranking, board.jobs
    while len(ranking) and board.tokens.left > 0 and (job := jobs.head()) is not None:
        record = jobs.records.get(job)
        worker = ranking.best(record.avoid if record else NO_NAMES)
        if worker is None or _hold_back(board, worker, waiting_since):
            break
        waiting_since = None
        _grant_head(board, job, worker)
    if len(ranking) and not jobs.queued:
        _hedge(board)


def _hold_back(board: Board, worker: Worker, since: float | None) -> bool:
    """The tail rule, for no longer than the slow worker itself would have needed."""
    if not board.ranking.worth_waiting(worker, board.jobs.queued):
        return False
    since = board.now if since is None else since
    until = since + (worker.used + 1) / worker.rate.per_s
    if board.now < until:
        board.held_back_at, board.held_back_until = since, until
    return board.now < until


def _grant_head(board: Board, job: int, worker: Worker) -> None:
    record = board.jobs.record_of(job)
    lease = _lease(board, record, worker, hedge=False)
    board.jobs.move(record, JobState.LEASED)
    board.say(
        JobChanged(job, JobState.QUEUED, JobState.LEASED, worker.key, record.attempts, "granted")
    )
    if not lease.alone:
        board.stragglers.watch(lease)


def _lease(board: Board, record: JobRecord, worker: Worker, *, hedge: bool) -> Lease:
    lease = Lease(
        job=record.job,
        token=board.tokens.take(),
        worker=worker.key,
        model=worker.model,
        granted=board.now,
        expected_s=(worker.used + 1) / worker.rate.per_s,
        alone=record.suspected,
        hedge=hedge,
    )
    board.leases[lease.token] = lease
    record.leases.append(lease)
    record.remember_token(lease, worker.name, board.config.tokens_remembered_max)
    worker.add(lease)
    board.touch(worker)
    board.counters["hedged" if hedge else "granted"] += 1
    deadline = board.jobs.deadlines.get(record.job)
    board.say(
        Grant(
            worker=worker.key,
            job=record.job,
            token=lease.token,
            attempt=record.attempts + 1,
            timeout_s=None if deadline is None else max(0.0, deadline - board.now),
            alone=lease.alone,
            hedge=hedge,
        )
    )
    return lease


# --- hedging -----------------------------------------------------------------------------


def _hedge(board: Board) -> None:
    """Nothing waits and somebody is idle: a second lease for each straggler."""
    for lease in board.stragglers.overdue(board.now):
        if not len(board.ranking) or board.tokens.left <= 0 or not _in_budget(board):
            return
        record = board.jobs.records[lease.job]
        if not may_hedge(record):
            board.stragglers.forget(lease)
            continue
        worker = board.ranking.best(record.avoid, barred=lease.worker)
        if worker is not None and _hedge_helps(board, record, lease, worker):
            board.stragglers.forget(lease)
            _lease(board, record, worker, hedge=True)


def _in_budget(board: Board) -> bool:
    """Extra load stays small, or a cluster that is slow for its load gets slower by hedging."""
    config, counters = board.config, board.counters
    allowed = config.hedge_burst + config.hedge_share * counters["granted"]
    return counters["hedged"] + 1 <= allowed


def _hedge_helps(board: Board, record: JobRecord, lease: Lease, worker: Worker) -> bool:
    """Is the worker to end well before the straggler, the job new to it, nobody better near?"""
    finish_s = (worker.used + 1) / worker.rate.per_s
    left_s = lease.granted + lease.expected_s - board.now
    if worker.name in record.avoid or 0 < left_s < board.config.hedge_factor * finish_s:
        return False
    return not board.ranking.worth_waiting(worker, 1, barred=board.workers[lease.worker])


def may_hedge(record: JobRecord) -> bool:
    """One lease that lives, and no suspicion that the job itself is what harms workers."""
    return len(record.leases) == 1 and not record.suspected


def hurry_hedges(board: Board, worker: Worker) -> None:
    """The worker is suspect: whoever is idle may take over what it holds."""
    if worker.detector.liveness is Liveness.SUSPECT:
        for lease in worker.leases.values():
            board.stragglers.hurry(lease)
