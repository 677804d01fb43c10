"""Time: heartbeats, silence, leases that run out, standstill, quarantine, deadlines of jobs.

Link liveness and progress are separate clocks. Silence moves a worker's
leases and keeps its connection; a standstill takes its jobs and its admission
and keeps its liveness. Neither is a death, so nothing is blamed; a job that
was executing used up an attempt and goes alone from then on.
"""

from __future__ import annotations

import math

from master.scheduler.board import Board
from master.scheduler.effects import DropWorker, LivenessChanged
from master.scheduler.endings import finish, requeue, withdraw
from master.scheduler.events import HeartbeatSeen
from master.scheduler.grants import hurry_hedges
from master.scheduler.workers import Worker
from master.states import Admission, JobState, Liveness, Outcome

# --- what arrives ------------------------------------------------------------------------


def heartbeat_seen(board: Board, event: HeartbeatSeen) -> None:
    """A worker beats: its leases are renewed, its progress is compared."""
    worker = board.workers.get(event.worker)
    if worker is None:
        return
    before = worker.detector.liveness
    worker.detector.beat(board.now)
    _tell_liveness(board, worker, before, "it beats again")
    if event.progress != worker.progress:
        _progressed(board, worker, event.progress)
    if not event.executing:
        worker.ghosts.clear()
    if worker.leases:
        worker.rate.age(board.now)
    board.ranking.update(worker)
    board.watch(worker)


def sign_of_life(board: Board, worker: Worker) -> None:
    """Another message than a heartbeat arrived."""
    before = worker.detector.liveness
    worker.detector.sign(board.now)
    _tell_liveness(board, worker, before, "it speaks again")


def _progressed(board: Board, worker: Worker, progress: int) -> None:
    worker.progress = progress
    worker.progress_at = board.now
    if worker.stuck:
        _end_quarantine(board, worker)


def _tell_liveness(board: Board, worker: Worker, before: Liveness, reason: str) -> None:
    after = worker.detector.liveness
    if after is before:
        return
    if after is Liveness.ALIVE:
        worker.drop_asked = False
        board.counters["revived"] += before is Liveness.DEAD
    phi = worker.detector.phi(board.now)
    board.say(LivenessChanged(worker.key, before, after, phi, reason))
    board.ranking.update(worker)


# --- what is due -------------------------------------------------------------------------


def tick(board: Board) -> None:
    """Look at every clock that is due."""
    _forgive_own_pause(board)
    # Each worker once: whatever it sets anew is later.
    for key in list(board.timers.take_due(board.now)):
        _check(board, board.workers[key])
    # After the backoffs: a job may come back from one with its time in the queue used up.
    sweep_jobs(board)
    _expire_queued(board)


def sweep_jobs(board: Board) -> None:
    """Deadlines that passed end their jobs; backoffs that are over requeue theirs."""
    jobs, now = board.jobs, board.now
    for job in jobs.deadlines.take_due(now):
        message = "its deadline passed before there was a result"
        finish(
            board, job, JobState.FAILED,
            code="deadline_exceeded", message=message, others=Outcome.EXPIRED,
        )  # fmt: skip
    while (due := jobs.backoffs.first()) is not None and due <= now:
        requeue(board, jobs.records[jobs.backoffs.key()], "its backoff is over")


def _expire_queued(board: Board) -> None:
    """Nobody may wait for ever; the head of the queue has waited longest."""
    ttl_s = board.config.queue_ttl_s
    while (job := board.jobs.head()) is not None:
        if board.jobs.accepted_at(job) + ttl_s > board.now:
            return
        message = f"it waited {ttl_s:g} s and no worker could take it"
        finish(board, job, JobState.FAILED, code="deadline_exceeded", message=message)


def _forgive_own_pause(board: Board) -> None:
    """If we come far too late, it was we who didn't listen: no worker is to blame for it."""
    due = board.timers.first()
    if due is None or board.now - due <= board.config.own_pause_s:
        return
    board.counters["own_pauses"] += 1
    for worker in board.workers.values():
        worker.progress_at = board.now
        if worker.detector.liveness is not Liveness.DEAD:
            worker.detector.forgive(board.now)


# --- one worker --------------------------------------------------------------------------


def _check(board: Board, worker: Worker) -> None:
    # Nothing arms the timer before the last check, or it would be for what is being checked.
    worker.timer_at = -math.inf
    _check_silence(board, worker)
    _check_leases(board, worker)
    _check_progress(board, worker)
    _check_pauses(board, worker)
    worker.timer_at = math.inf
    board.touch(worker)


def _check_silence(board: Board, worker: Worker) -> None:
    detector, now = worker.detector, board.now
    before = detector.liveness
    after = detector.check(now)
    silence_s = now - detector.seen_at
    _tell_liveness(board, worker, before, f"nothing came for {silence_s:.2f} s")
    if after is not before and after is Liveness.SUSPECT:
        board.counters["suspected"] += 1
        hurry_hedges(board, worker)
    if after is not before and after is Liveness.DEAD:
        board.counters["died"] += 1
        why = f"{worker.name} fell silent for {silence_s:.2f} s"
        _withdraw_all(board, worker, Outcome.LOST, Outcome.LOST, "worker_silent", why)
    if after is Liveness.DEAD and now >= detector.seen_at + board.config.drop_after_s:
        _drop(board, worker, f"silent for {silence_s:.0f} s")


def _drop(board: Board, worker: Worker, reason: str) -> None:
    if not worker.drop_asked:
        worker.drop_asked = True
        board.say(DropWorker(worker.key, reason))


def _check_leases(board: Board, worker: Worker) -> None:
    config, now = board.config, board.now
    if now >= worker.expires_at(config.lease_ttl_s):
        why = f"{worker.name} renewed no lease for {config.lease_ttl_s:g} s"
        _withdraw_all(board, worker, Outcome.EXPIRED, Outcome.LOST, "lease_expired", why)
    while now >= worker.capped_at(config.attempt_timeout_s):
        lease = next(iter(worker.leases.values()))
        why = f"{worker.name} had it for {config.attempt_timeout_s:g} s"
        withdraw(board, lease, Outcome.EXPIRED, Outcome.RELEASED, "attempt_timeout", why)


def _check_progress(board: Board, worker: Worker) -> None:
    timeout_s = board.config.progress_timeout_s
    if board.now < worker.stuck_at(timeout_s):
        return
    why = f"{worker.name} made no progress for {timeout_s:g} s"
    _withdraw_all(board, worker, Outcome.EXPIRED, Outcome.RELEASED, "no_progress", why)
    quarantine(board, worker, why, stuck=True)


def _check_pauses(board: Board, worker: Worker) -> None:
    if board.now >= worker.paused_until:
        worker.paused_until = math.inf
    if board.now >= worker.quarantined_until:
        _end_quarantine(board, worker)


def _withdraw_all(
    board: Board, worker: Worker, began: Outcome, unbegun: Outcome, code: str, why: str
) -> None:
    for lease in tuple(worker.leases.values()):
        withdraw(board, lease, began, unbegun, code, why)


def quarantine(board: Board, worker: Worker, why: str, *, stuck: bool) -> None:
    """No leases for a while, twice as long each time in a row; what waits there goes elsewhere.

    Progress ends it early if a standstill (`stuck`) was the reason.
    """
    if worker.admission is Admission.DRAINING:
        return
    config = board.config
    length_s = config.quarantine_base_s * 2.0 ** min(worker.quarantines, 30)
    worker.admission = Admission.QUARANTINED
    worker.quarantined_until = board.now + min(config.quarantine_cap_s, length_s)
    worker.quarantines += 1
    worker.stuck = stuck
    worker.faults_in_a_row = 0
    board.counters["quarantined"] += 1
    for lease in [lease for lease in worker.leases.values() if lease.started is None]:
        withdraw(board, lease, Outcome.EXPIRED, Outcome.RELEASED, "quarantined", why)
    board.touch(worker)


def _end_quarantine(board: Board, worker: Worker) -> None:
    worker.quarantined_until = math.inf
    worker.stuck = False
    if worker.admission is Admission.QUARANTINED:
        worker.admission = Admission.ACCEPTING
    board.ranking.update(worker)
