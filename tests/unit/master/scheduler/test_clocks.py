"""Silence, leases that run out, standstill, quarantine, deadlines: literal times throughout."""

from __future__ import annotations

import pytest

from master.scheduler import effects as fx
from master.scheduler import events as ev
from master.states import Admission, JobState, Liveness, Outcome
from tests.unit.master.scheduler.rig import Rig, grants, of, only


def _known(rig: Rig, key: str, until: float = 30.0, slots: int = 2) -> None:
    """A worker whose link is known: it has beaten for a while."""
    rig.join(key, slots=slots)
    rig.run_until(until, key)


# --- silence -----------------------------------------------------------------------------


def test_a_silent_worker_is_suspected_then_dead_and_its_jobs_move() -> None:
    rig = Rig()
    _known(rig, "w1#1", slots=2)
    begun, waiting = grants(rig.accept(1, 2))
    rig.start(begun)
    effects = rig.run_until(33.0)
    changes = of(effects, fx.LivenessChanged)
    assert [change.target for change in changes] == [Liveness.SUSPECT, Liveness.DEAD]
    assert [change.phi for change in changes] == pytest.approx([2.0, 10.0], abs=0.01)
    ended = {end.job: end for end in of(effects, fx.AttemptEnded)}
    assert {end.outcome for end in ended.values()} == {Outcome.LOST}
    assert not any(end.blamed for end in ended.values()), "a hang is not a death"
    assert rig.scheduler.state(1) == (JobState.QUEUED, 1, None, None)
    assert rig.scheduler.state(2) == (JobState.QUEUED, 0, None, None)
    assert {revoke.token for revoke in of(effects, fx.Revoke)} == {begun.token, waiting.token}
    alone = {grant.job: grant.alone for grant in grants(rig.join("w2#1"))}
    assert alone == {1: True, 2: False}


def test_the_jobs_of_a_stopped_worker_move_within_three_seconds() -> None:
    rig = Rig(hedge_burst=0.5)
    _known(rig, "w1#1")
    rig.accept(1)
    rig.join("w2#1", slots=1)
    effects = rig.run_until(32.8, "w2#1")
    assert not grants(effects)
    moved = grants(rig.run_until(33.0, "w2#1"))
    assert [(grant.job, grant.worker, grant.hedge) for grant in moved] == [(1, "w2#1", False)]


def test_a_suspect_gets_no_grant_and_a_beat_brings_it_back() -> None:
    rig = Rig()
    _known(rig, "w1#1")
    rig.run_until(32.0)
    assert rig.scheduler.worker_stats("w1#1", 32.0).liveness is Liveness.SUSPECT
    assert not grants(rig.accept(1))
    effects = rig.beat("w1#1", at=32.1)
    assert only(effects, fx.LivenessChanged).target is Liveness.ALIVE
    assert [grant.job for grant in grants(effects)] == [1]


def test_a_result_counts_as_life() -> None:
    rig = Rig()
    _known(rig, "w1#1")
    (grant,) = grants(rig.accept(1))
    rig.run_until(32.0)
    effects = rig.succeed(grant, at=32.1)
    assert only(effects, fx.LivenessChanged).target is Liveness.ALIVE
    assert only(effects, fx.Finish).state is JobState.SUCCEEDED


def test_a_dead_worker_that_beats_again_works_again() -> None:
    rig = Rig()
    _known(rig, "w1#1", slots=1)
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    rig.run_until(50.0)
    assert rig.scheduler.worker_stats("w1#1", 50.0).liveness is Liveness.DEAD
    effects = rig.do(ev.HeartbeatSeen("w1#1", 98, held=1, executing=1), 50.1)
    assert not of(effects, fx.LivenessChanged), "one beat may be an old one"
    rig.do(ev.HeartbeatSeen("w1#1", 99, held=1, executing=1), 50.6)
    assert rig.scheduler.worker_stats("w1#1", 50.6).liveness is Liveness.ALIVE
    assert rig.state(1) is JobState.QUEUED, "its one slot still executes what was taken from it"
    effects = rig.succeed(grant, at=50.7)
    assert only(effects, fx.Finish).late
    assert [again.job for again in grants(rig.accept(2))] == [2]


def test_a_slot_is_free_again_once_the_worker_says_that_nothing_executes() -> None:
    rig = Rig()
    _known(rig, "w1#1", slots=1)
    (grant,) = grants(rig.accept(1, 2))
    rig.start(grant)
    rig.do(ev.JobsCancelled([1], "asked"))
    assert rig.state(2) is JobState.QUEUED
    assert not grants(rig.do(ev.HeartbeatSeen("w1#1", 1, held=1, executing=1)))
    assert grants(rig.do(ev.HeartbeatSeen("w1#1", 2, held=0, executing=0)))


def test_a_worker_silent_for_a_minute_is_dropped_once() -> None:
    rig = Rig()
    _known(rig, "w1#1")
    effects = rig.run_until(120.0)
    assert only(effects, fx.DropWorker).worker == "w1#1"
    assert rig.scheduler.next_deadline() is None


def test_our_own_pause_is_nobodys_death() -> None:
    rig = Rig()
    _known(rig, "w1#1")
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    effects = rig.do(ev.Tick(), 500.0)
    assert not of(effects, fx.LivenessChanged) and not of(effects, fx.AttemptEnded)
    assert rig.counter("own_pauses") == 1
    effects = rig.run_until(505.0)
    assert of(effects, fx.LivenessChanged)[-1].target is Liveness.DEAD, "but silence after it is"


def test_leases_that_nothing_renews_expire() -> None:
    rig = Rig(lease_ttl_s=1.5)
    _known(rig, "w1#1")
    first, _ = grants(rig.accept(1, 2))
    rig.start(first)
    effects = rig.run_until(31.6)
    ended = {end.job: end for end in of(effects, fx.AttemptEnded)}
    assert (ended[1].outcome, ended[1].error_code) == (Outcome.EXPIRED, "lease_expired")
    assert (ended[2].outcome, ended[2].blamed) == (Outcome.LOST, False)


def test_beats_renew_leases_for_as_long_as_there_is_progress() -> None:
    rig = Rig()
    _known(rig, "w1#1")
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    effects = rig.run_until(600.0, "w1#1")
    assert not of(effects, fx.AttemptEnded)
    effects = rig.run_until(631.0, "w1#1")
    ended = only(effects, fx.AttemptEnded)
    assert (ended.outcome, ended.error_code) == (Outcome.EXPIRED, "attempt_timeout")


# --- standstill --------------------------------------------------------------------------


def _stand_still(rig: Rig, seconds: float) -> list[fx.Effect]:
    effects: list[fx.Effect] = []
    end = rig.now + seconds
    while rig.now < end:
        effects += rig.run_until(rig.now + 0.5)
        effects += rig.beat("w1#1", progress=0)
    return effects


def test_a_worker_that_beats_and_stands_still_loses_its_jobs_and_not_its_connection() -> None:
    rig = Rig()
    _known(rig, "w1#1", slots=2)
    begun, _ = grants(rig.accept(1, 2))
    rig.start(begun)
    effects = _stand_still(rig, 60.5)
    ended = {end.job: end for end in of(effects, fx.AttemptEnded)}
    assert (ended[1].outcome, ended[1].error_code) == (Outcome.EXPIRED, "no_progress")
    assert ended[2].outcome is Outcome.RELEASED
    assert {revoke.job for revoke in of(effects, fx.Revoke)} == {1, 2}
    assert not of(effects, fx.LivenessChanged) and not of(effects, fx.DropWorker)
    assert rig.scheduler.worker_stats("w1#1", rig.now).admission is Admission.QUARANTINED
    assert rig.scheduler.state(1) in [
        (JobState.BACKOFF, 1, None, None),
        (JobState.QUEUED, 1, None, None),
    ]


def test_progress_ends_the_quarantine() -> None:
    rig = Rig()
    _known(rig, "w1#1", slots=2)
    (begun,) = grants(rig.accept(1))
    rig.start(begun)
    _stand_still(rig, 60.5)
    rig.accept(2)
    effects = rig.beat("w1#1", progress=1)
    assert rig.scheduler.worker_stats("w1#1", rig.now).admission is Admission.ACCEPTING
    assert 2 in {grant.job for grant in grants(effects)}


def test_quarantine_grows_while_nothing_succeeds() -> None:
    rig = Rig(attempts_max=9)
    _known(rig, "w1#1", slots=1)
    lengths = []
    effects = rig.accept(1)
    for _ in range(3):
        while not grants(effects):
            effects = _stand_still(rig, 0.5)
        rig.start(grants(effects)[0])
        rig.do(ev.HeartbeatSeen("w1#1", rig.progress["w1#1"], 0, 0))
        _stand_still(rig, 60.0)
        since = rig.now
        while rig.scheduler.worker_stats("w1#1", 0.0).admission is Admission.QUARANTINED:
            effects = _stand_still(rig, 0.5)
            rig.do(ev.HeartbeatSeen("w1#1", rig.progress["w1#1"], 0, 0))
        lengths.append(round(rig.now - since))
    assert lengths == [30, 60, 120]


def test_a_long_job_with_progress_is_left_alone() -> None:
    rig = Rig()
    _known(rig, "w1#1")
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    for _ in range(5):
        assert not of(_stand_still(rig, 59.0), fx.AttemptEnded)
        rig.beat("w1#1", progress=1)


def test_idle_time_is_no_standstill() -> None:
    rig = Rig()
    _known(rig, "w1#1")
    _stand_still(rig, 300.0)
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    assert not of(_stand_still(rig, 59.0), fx.AttemptEnded)


# --- deadlines of jobs -------------------------------------------------------------------


def test_a_deadline_ends_a_job_in_every_state() -> None:
    rig = Rig()
    rig.join("w1#1", slots=2)
    leased, failing = grants(rig.accept(1, 2, 3, deadline=2.0))
    rig.start(leased)
    rig.fail(failing, "engine_error", at=1.99, retryable=True)
    rig.do(ev.WorkerUnready("w1#1"))
    effects = rig.run_until(2.0)
    ends = of(effects, fx.Finish)
    assert {end.job for end in ends} == {1, 2, 3}
    assert {(end.state, end.error_code) for end in ends} == {(JobState.FAILED, "deadline_exceeded")}
    assert {end.job: end.attempts for end in ends} == {1: 1, 2: 1, 3: 0}
    assert {revoke.job for revoke in of(effects, fx.Revoke)} >= {1}
    assert rig.counter("deadline_exceeded") == 3


def test_a_job_that_is_over_leaves_no_deadline_behind() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1, deadline=5.0))
    rig.succeed(grant)
    assert not of(rig.run_until(6.0, "w1#1"), fx.Finish)


def test_a_grant_says_what_is_left_of_the_deadline() -> None:
    rig = Rig()
    rig.accept(1, deadline=5.0)
    rig.now = 1.5
    assert [grant.timeout_s for grant in grants(rig.join("w1#1"))] == [3.5]


def test_a_job_whose_deadline_passed_is_never_granted() -> None:
    rig = Rig()
    rig.accept(1, deadline=5.0)
    rig.now = 5.0
    effects = rig.join("w1#1")
    assert not grants(effects)
    assert only(effects, fx.Finish).error_code == "deadline_exceeded"


def test_a_backoff_gives_no_second_life_in_the_queue() -> None:
    rig = Rig(queue_ttl_s=10.0, backoff_base_s=5.0, backoff_cap_s=5.0)
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.fail(grant, "engine_error", at=9.9, retryable=True)
    rig.do(ev.WorkerUnready("w1#1"))
    end = only(rig.run_until(15.0, "w1#1"), fx.Finish)
    assert (end.error_code, end.attempts) == ("deadline_exceeded", 1)


def test_nobody_waits_in_the_queue_for_ever() -> None:
    rig = Rig(queue_ttl_s=100.0)
    rig.accept(1, 2)
    rig.now = 50.0
    rig.accept(3)
    assert rig.scheduler.next_deadline() == 100.0
    ends = of(rig.run_until(149.0), fx.Finish)
    assert [(end.job, end.error_code) for end in ends] == [
        (1, "deadline_exceeded"),
        (2, "deadline_exceeded"),
    ]
    assert [end.job for end in of(rig.run_until(150.0), fx.Finish)] == [3]
