"""What a worker says of its leases: begun, answered, given back.

Promises that a result is taken at most once a job: by its live lease, or late
by the rule of `late`; every other one is answered as stale.
"""

from __future__ import annotations

from typing import Final

import msgspec

from master.scheduler.board import Board
from master.scheduler.clocks import quarantine, sign_of_life
from master.scheduler.effects import AnswerStale, AttemptEnded, Finish
from master.scheduler.endings import (
    conclude,
    end_all,
    end_lease,
    finish_by,
    requeue,
    requeue_or_fail,
)
from master.scheduler.events import AttemptStarted, LeaseReleased, ResultArrived
from master.scheduler.late import LateResult, refusal
from master.scheduler.leases import Lease
from master.scheduler.workers import Worker
from master.states import Admission, JobState, Outcome

GRANTED_BEFORE: Final = "granted_before"
"""Code of an audit row whose `granted` is when the late result was taken."""


def attempt_started(board: Board, event: AttemptStarted) -> None:
    """The worker is about to execute a lease."""
    worker = board.workers.get(event.worker)
    if worker is None:
        return
    sign_of_life(board, worker)
    lease = _live(board, worker, event.job, event.token)
    if lease is not None and lease.worker == worker.key:
        if lease.started is None:
            board.hazard.began()
        worker.begin(lease, board.now)
        board.counters["started"] += 1
    elif len(worker.ghosts) < worker.slots and event.token < board.tokens.next:
        # It began before our `Revoke` reached it: the slot is busy until it answers.
        worker.ghosts.add(event.token)
        board.ranking.update(worker)
    board.watch(worker)


def lease_released(board: Board, event: LeaseReleased) -> None:
    """The worker gives a lease back that it had not begun: nothing is counted."""
    worker = board.workers.get(event.worker)
    if worker is None:
        return
    sign_of_life(board, worker)
    lease = _live(board, worker, event.job, event.token)
    if lease is not None and worker.admission is Admission.ACCEPTING:
        # Or the same lease would go to and fro as fast as the network carries it.
        worker.paused_until = board.now + board.config.release_pause_s
    if lease is not None:
        reason = "the worker gave it back"
        requeue(board, end_lease(board, lease, Outcome.RELEASED, answered=True), reason)
    board.touch(worker)


def result_arrived(board: Board, event: ResultArrived) -> None:
    """The worker answers a lease, live or not."""
    worker = board.workers.get(event.worker)
    if worker is not None:
        sign_of_life(board, worker)
        worker.progress_at = board.now
        worker.ghosts.discard(event.token)
    lease = _live(board, worker, event.job, event.token)
    if lease is None:
        _late(board, worker, event)
    elif event.fault_code is not None:
        _fault(board, lease, event)
    elif board.model not in (None, event.model) and event.model != lease.model:
        _wrong_model(board, lease, event)
    else:
        _success(board, lease, event)
        if lease.worker == event.worker:
            return  # ending its lease has ranked it anew already
    if worker is not None:
        board.touch(worker)


def _live(board: Board, worker: Worker | None, job: int, token: int) -> Lease | None:
    """The live lease that the worker speaks of; it may have come back on a new connection."""
    lease = board.leases.get(token)
    if lease is None or lease.job != job or worker is None:
        return None
    return lease if board.workers[lease.worker].name == worker.name else None


# --- a live lease ------------------------------------------------------------------------


def _success(board: Board, lease: Lease, event: ResultArrived) -> None:
    _measure(board, lease)
    holder = board.workers[lease.worker]
    holder.completed += 1
    holder.faults_in_a_row = holder.quarantines = 0
    board.counters["hedge_wins"] += lease.hedge
    end_lease(board, lease, Outcome.SUCCEEDED, answered=True)
    finish_by(board, lease, event.worker, JobState.SUCCEEDED, None, "")


def _measure(board: Board, lease: Lease) -> None:
    board.workers[lease.worker].rate.complete(board.now)
    board.stragglers.finished(board.now - lease.granted)


def _fault(board: Board, lease: Lease, event: ResultArrived) -> None:
    code, message = event.fault_code or "", event.fault_message
    if event.retryable:
        _retryable(board, lease, code, message)
        return
    # A fault of the image is work done; one that never began (unreadable) says nothing of speed.
    if lease.started is not None:
        _measure(board, lease)
    board.workers[lease.worker].errored += 1
    end_lease(board, lease, Outcome.ERRORED, answered=True, error_code=code, error_message=message)
    finish_by(board, lease, event.worker, JobState.FAILED, code, message)


def _retryable(board: Board, lease: Lease, code: str, message: str) -> None:
    holder = board.workers[lease.worker]
    holder.errored += 1
    holder.faults_in_a_row += 1
    record = end_lease(
        board, lease, Outcome.ERRORED, answered=True, error_code=code, error_message=message
    )
    record.attempts += 1
    record.avoid_worker(holder.name)
    requeue_or_fail(board, record, f"{code} at {holder.name}: {message}", wait=True)
    if holder.faults_in_a_row >= board.config.faults_in_a_row_max:
        why = f"{holder.faults_in_a_row} retryable faults in a row, the last one {code}"
        quarantine(board, holder, why, stuck=False)


def _wrong_model(board: Board, lease: Lease, event: ResultArrived) -> None:
    why = f"made by model {event.model}; the lease asked for {lease.model}"
    _stale(board, board.workers.get(event.worker), event, why)
    _retryable(board, lease, "wrong_model", why)


# --- no live lease -----------------------------------------------------------------------


def _late(board: Board, worker: Worker | None, event: ResultArrived) -> None:
    record = board.jobs.records.get(event.job)
    late = LateResult(
        token=event.token,
        worker=worker.name if worker else None,
        model=event.model,
        success=event.fault_code is None,
        job_open=board.jobs.state(event.job) is not None,
        granted=record.tokens if record else (),
        model_in_force=board.model,
        first_of_life=board.tokens.first_of_life,
    )
    reason = refusal(late)
    if reason is None:
        _take_late(board, event)
        return
    board.counters["wasted"] += late.success and not late.job_open
    _stale(board, worker, event, reason)


def _take_late(board: Board, event: ResultArrived) -> None:
    board.counters["late_accepted"] += 1
    record = board.jobs.records.get(event.job)
    attempts = 1
    if record is not None:
        attempts = max(1, record.attempts)
        end_all(board, record, Outcome.CANCELLED, "a late result of an earlier lease was taken")
    _audit_late(board, event)
    conclude(
        board,
        Finish(event.job, JobState.SUCCEEDED, attempts, event.worker, event.token, None, late=True),
    )


def _audit_late(board: Board, event: ResultArrived) -> None:
    """A lease of an earlier life has no end in the audit yet; this is it."""
    first = board.tokens.first_of_life
    if first is not None and event.token < first:
        now = board.now
        end = AttemptEnded(event.job, event.token, event.worker, Outcome.SUCCEEDED, now, None)
        why = "granted by an earlier life of the core, which alone knew when"
        board.say(msgspec.structs.replace(end, error_code=GRANTED_BEFORE, error_message=why))


def _stale(board: Board, worker: Worker | None, event: ResultArrived, reason: str) -> None:
    board.counters["stale"] += 1
    if worker is not None:
        worker.stale += 1
    board.say(AnswerStale(event.worker, event.job, event.token, reason))
