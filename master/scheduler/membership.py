"""Workers that join, get ready, drain and leave; the model that they serve.

Blame: a job is blamed for a death if it was executing, in this worker, as the
connection ended without a goodbye. A worker that had been silent before has
no leases left to be blamed for: a cut cable is no evidence against an image.
And if the same incarnation joins again, it had not died at all: what it was
blamed for is pardoned.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from master.scheduler.board import Board
from master.scheduler.clocks import sign_of_life
from master.scheduler.effects import AskDrain
from master.scheduler.endings import end_lease, finish, requeue, requeue_or_fail
from master.scheduler.events import (
    DrainWorkerAsked,
    ModelChanged,
    WorkerDraining,
    WorkerGone,
    WorkerJoined,
    WorkerReady,
    WorkerUnready,
)
from master.scheduler.hazard import deaths_allowed
from master.scheduler.jobs import JobRecord
from master.scheduler.leases import Lease
from master.scheduler.workers import Worker
from master.states import Admission, JobState, Outcome
from wire.errors import LocalFault

K = TypeVar("K")
V = TypeVar("V")


def worker_joined(board: Board, event: WorkerJoined) -> None:
    """A connection passed the handshake. Raises `LocalFault` for a key that is in use."""
    if event.worker in board.workers:
        raise LocalFault(f"worker {event.worker} has joined already")
    worker = board.new_worker(event.worker, event.name, event.incarnation)
    board.workers[event.worker] = worker
    _pardon(board, event.name, board.gone.pop((event.name, event.incarnation), ()))
    board.touch(worker)


def worker_ready(board: Board, event: WorkerReady) -> None:
    """The worker is warm and takes leases, if it serves the model in force."""
    worker = board.workers.get(event.worker)
    if worker is not None:
        sign_of_life(board, worker)
        worker.slots, worker.model = event.slots, event.model
        worker.ready = board.model in (None, event.model)
        board.touch(worker)


def worker_unready(board: Board, event: WorkerUnready) -> None:
    """The worker can't serve the model; what it holds, it may finish."""
    worker = board.workers.get(event.worker)
    if worker is not None:
        sign_of_life(board, worker)
        worker.ready = False
        board.touch(worker)


def drain_asked(board: Board, event: DrainWorkerAsked) -> None:
    """A person wants the worker to finish and leave."""
    worker = board.workers.get(event.worker)
    if worker is not None:
        worker.admission = Admission.DRAINING
        board.say(AskDrain(worker.key, event.reason))
        board.touch(worker)


def worker_draining(board: Board, event: WorkerDraining) -> None:
    """The worker is about to leave by itself."""
    worker = board.workers.get(event.worker)
    if worker is not None:
        sign_of_life(board, worker)
        worker.admission = Admission.DRAINING
        board.touch(worker)


def model_changed(board: Board, event: ModelChanged) -> None:
    """Workers of another model get no leases until they are ready with this one."""
    board.model = event.model
    for worker in board.workers.values():
        worker.ready = worker.ready and worker.model == event.model
        board.touch(worker)


# --- leaving -----------------------------------------------------------------------------


def worker_gone(board: Board, event: WorkerGone) -> None:
    """The connection ended: its leases end at once, and the worker is forgotten."""
    worker = board.workers.get(event.worker)
    if worker is None:
        return
    worker.ready = False
    blamed = [] if event.clean else [
        lease.job for lease in worker.leases.values() if lease.started is not None
    ]  # fmt: skip
    if blamed:
        _remember(board.deaths, worker.name, board.deaths.get(worker.name, 0) + 1, board)
        _remember(board.gone, (worker.name, worker.incarnation), tuple(blamed), board)
        board.hazard.died(len(blamed))
    for lease in tuple(worker.leases.values()):
        _lose(board, worker, lease, event, len(blamed))
    board.ranking.forget(worker)
    board.timers.forget(worker.key)
    del board.workers[worker.key]


def _remember(table: OrderedDict[K, V], key: K, value: V, board: Board) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > board.config.workers_remembered_max:
        table.popitem(last=False)


def _lose(board: Board, worker: Worker, lease: Lease, event: WorkerGone, died: int) -> None:
    why = f"{worker.name} is gone: {event.reason}"
    if event.clean:
        requeue(board, end_lease(board, lease, Outcome.RELEASED, error_message=why), why)
    elif lease.started is None:
        requeue(board, end_lease(board, lease, Outcome.LOST, error_message=why), why)
    else:
        _blame(board, worker, lease, why, died)


def _blame(board: Board, worker: Worker, lease: Lease, why: str, died: int) -> None:
    record = end_lease(
        board, lease, Outcome.LOST, blamed=True, error_code="worker_died", error_message=why
    )
    record.attempts += 1
    record.blamed = (*record.blamed, worker.name)
    record.died_with += died
    record.suspected = True
    record.avoid_worker(worker.name)
    board.counters["blamed"] += 1
    if not fail_poison(board, record):
        requeue_or_fail(board, record, why, wait=False)


def fail_poison(board: Board, record: JobRecord) -> bool:
    """Fail a job that has cost too many workers their life; says whether it did.

    How many are too many follows from how often workers die under other jobs.
    """
    config = board.config
    hazard = board.hazard.elsewhere(record.attempts, record.died_with)
    allowed = deaths_allowed(
        hazard, config.poison_chance, config.poison_deaths, config.poison_deaths_max
    )
    if len(record.blamed) < allowed:
        return False
    names = ", ".join(record.blamed)
    message = f"{len(record.blamed)} workers died while they executed it: {names}"
    finish(board, record.job, JobState.FAILED, code="poison", message=message)
    return True


def _pardon(board: Board, name: str, jobs: tuple[int, ...]) -> None:
    """The worker lives: only its connection had died."""
    if not jobs:
        return
    board.deaths[name] = max(0, board.deaths.get(name, 0) - 1)
    board.hazard.died(-len(jobs))
    for job in jobs:
        record = board.jobs.records.get(job)
        if record is not None and name in record.blamed:
            blamed = list(record.blamed)
            blamed.remove(name)
            record.blamed = tuple(blamed)
            record.died_with = max(0, record.died_with - len(jobs))
            board.counters["pardoned"] += 1
