"""How leases and jobs end: every way out of `leased`, and every outcome.

Promises that each lease ends once, with one `AttemptEnded`, and each job once,
with one `Finish` that revokes what is still live of it.
"""

from __future__ import annotations

from typing import Final

from master.scheduler.backoff import backoff_s
from master.scheduler.board import Board
from master.scheduler.effects import AttemptEnded, Finish, JobChanged, Revoke
from master.scheduler.jobs import JobRecord
from master.scheduler.leases import Lease
from master.states import JobState, Outcome

_COUNTED: Final = (Outcome.ERRORED, Outcome.EXPIRED, Outcome.LOST, Outcome.RELEASED)


def end_lease(
    board: Board,
    lease: Lease,
    outcome: Outcome,
    *,
    blamed: bool = False,
    answered: bool = False,
    error_code: str | None = None,
    error_message: str = "",
) -> JobRecord:
    """Take a lease out of every table and tell the audit; the job stays where it is."""
    record = board.jobs.records[lease.job]
    record.leases.remove(lease)
    for left in record.leases:
        left.hedge = False
    del board.leases[lease.token]
    if outcome in _COUNTED:
        board.counters[outcome.value] += 1
    board.stragglers.forget(lease)
    worker = board.workers[lease.worker]
    worker.remove(lease, answered)
    board.touch(worker)
    board.say(
        AttemptEnded(
            job=lease.job,
            token=lease.token,
            worker=lease.worker,
            outcome=outcome,
            granted=lease.granted,
            started=lease.started,
            blamed=blamed,
            error_code=error_code,
            error_message=error_message,
        )
    )
    return record


def revoke(board: Board, lease: Lease, reason: str) -> None:
    """Ask the worker to drop a lease that is about to end."""
    board.say(Revoke(lease.worker, lease.job, lease.token, reason))


def withdraw(
    board: Board, lease: Lease, began: Outcome, unbegun: Outcome, code: str, why: str
) -> None:
    """Take a lease back from a worker that can't be relied on.

    A job that had begun used up an attempt, which ends as `began`: it goes again
    alone, so that it can harm nobody else. One that had not keeps its attempts.
    """
    revoke(board, lease, why)
    if lease.started is None:
        requeue(board, end_lease(board, lease, unbegun, error_code=code, error_message=why), why)
        return
    record = end_lease(board, lease, began, error_code=code, error_message=why)
    record.attempts += 1
    record.suspected = True
    record.avoid_worker(board.workers[lease.worker].name)
    requeue_or_fail(board, record, why, wait=began is Outcome.EXPIRED)


def requeue_or_fail(board: Board, record: JobRecord, last_error: str, *, wait: bool) -> None:
    """The attempt was counted: fail the job if it was the last one, else let it go again."""
    # Deaths have a limit of their own (`fail_poison`): where many workers die, more of them.
    if record.attempts - len(record.blamed) >= board.config.attempts_max:
        message = f"{record.attempts} attempts failed; the last one: {last_error}"
        finish(board, record.job, JobState.FAILED, code="attempts_exhausted", message=message)
    elif not wait:
        requeue(board, record, last_error)
    elif not record.leases:
        config = board.config
        wait_s = backoff_s(record.attempts, config.backoff_base_s, config.backoff_cap_s, board.rng)
        _move(board, record, JobState.BACKOFF, last_error, board.now + wait_s)


def requeue(board: Board, record: JobRecord, reason: str) -> None:
    """Put a job back before all fresh ones, unless its other lease goes on."""
    if not record.leases:
        board.counters["requeued"] += 1
        _move(board, record, JobState.QUEUED, reason)


def _move(
    board: Board, record: JobRecord, target: JobState, reason: str, until: float | None = None
) -> None:
    source = record.state
    board.jobs.move(record, target, until)
    board.say(JobChanged(record.job, source, target, None, record.attempts, reason))


def finish(
    board: Board,
    job: int,
    state: JobState,
    *,
    code: str | None = None,
    message: str = "",
    others: Outcome = Outcome.CANCELLED,
) -> None:
    """Give a job an outcome that no result made; its live leases are revoked."""
    record = board.jobs.records.get(job)
    attempts = 0
    if record is not None:
        begun = any(lease.started is not None for lease in record.leases)
        attempts = record.attempts + begun
        end_all(board, record, others, message)
    conclude(board, Finish(job, state, attempts, None, None, None, code, message))


def finish_by(
    board: Board, lease: Lease, sender: str, state: JobState, code: str | None, message: str
) -> None:
    """Give a job the outcome that the result of its `lease`, ended by now, makes.

    `sender` is the connection that waits to hear of it.
    """
    record = board.jobs.records[lease.job]
    end_all(board, record, Outcome.CANCELLED, "another lease of the job gave the result")
    attempts = record.attempts + 1
    outcome = Finish(lease.job, state, attempts, sender, lease.token, lease.started, code, message)
    conclude(board, outcome)


def conclude(board: Board, outcome: Finish) -> None:
    """Forget the job and tell its outcome."""
    board.jobs.end(outcome.job, outcome.state)
    board.counters[outcome.state.value] += 1
    if outcome.error_code in ("poison", "deadline_exceeded"):
        board.counters[outcome.error_code] += 1
    board.say(outcome)


def end_all(board: Board, record: JobRecord, outcome: Outcome, reason: str) -> None:
    """Revoke and end every live lease of a job that is about to have its outcome."""
    for lease in tuple(record.leases):
        revoke(board, lease, reason)
        end_lease(board, lease, outcome, error_message=reason)
