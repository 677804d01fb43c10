"""Jobs that come in, come back from an earlier life, or are cancelled; tokens; the drain."""

from __future__ import annotations

from master.scheduler.board import Board
from master.scheduler.endings import finish
from master.scheduler.events import (
    JobRecovered,
    JobsAccepted,
    JobsCancelled,
    JobsRecovered,
    ShutdownAsked,
    TokensReserved,
)
from master.scheduler.jobs import JobRecord
from master.scheduler.membership import fail_poison
from master.states import JobState


def tokens_reserved(board: Board, event: TokensReserved) -> None:
    """A block of fencing tokens is durable."""
    board.tokens.reserved(event.first, event.last)


def jobs_accepted(board: Board, event: JobsAccepted) -> None:
    """New durable jobs join the queue."""
    board.counters["accepted"] += board.jobs.accept(event.jobs, event.deadline, board.now)


def job_recovered(board: Board, event: JobRecovered) -> None:
    """A job of an earlier life joins the queue; one with a history keeps it."""
    board.counters["recovered"] += 1
    if not event.attempts and not event.blamed_deaths:
        board.jobs.accept((event.job,), event.deadline, board.now)
        return
    names = tuple(event.blamed_deaths)
    record = JobRecord(
        event.job,
        board.now,
        attempts=event.attempts,
        blamed=names,
        died_with=len(names),
        suspected=bool(names),
        avoid=tuple(dict.fromkeys(names)),
    )
    board.jobs.recover(record)
    # What an earlier life saw of deaths is all that this one knows of them yet.
    board.hazard.began(event.attempts)
    board.hazard.died(len(names))
    if event.deadline is not None:
        board.jobs.deadlines.set(event.job, event.deadline)
    if len(names) >= board.config.poison_deaths_max:
        fail_poison(board, record)


def jobs_recovered(board: Board, event: JobsRecovered) -> None:
    """Jobs of an earlier life that have no history join the queue."""
    board.counters["recovered"] += board.jobs.accept(event.jobs, None, board.now)


def jobs_cancelled(board: Board, event: JobsCancelled) -> None:
    """Jobs that have no outcome yet get this one; the others keep theirs."""
    for job in event.jobs:
        if board.jobs.state(job) is not None:
            finish(board, job, JobState.CANCELLED, code="cancelled", message=event.reason)


def shutdown_asked(board: Board, event: ShutdownAsked) -> None:
    """The core drains: no grants from now on, results are still taken."""
    board.stopping = True
