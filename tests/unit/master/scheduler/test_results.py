"""What an answer does: success, faults, retries, late and stale ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from master.scheduler import effects as fx
from master.scheduler import events as ev
from master.scheduler.late import LateResult, refusal
from master.states import Admission, JobState, Outcome
from tests.unit.master.scheduler.rig import FIRST_TOKEN, MODEL, Rig, grants, of, only

# --- a live lease ------------------------------------------------------------------------


def test_a_success_ends_the_job_with_its_lease() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.start(grant, at=0.25)
    effects = rig.succeed(grant, at=0.5)
    assert only(effects, fx.AttemptEnded).outcome is Outcome.SUCCEEDED
    assert only(effects, fx.Finish) == fx.Finish(
        1, JobState.SUCCEEDED, 1, "w1#1", grant.token, 0.25
    )
    assert effects.index(only(effects, fx.AttemptEnded)) < effects.index(only(effects, fx.Finish))
    assert rig.scheduler.state(1) is None


def test_the_same_result_again_is_stale() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.succeed(grant)
    effects = rig.succeed(grant)
    assert only(effects, fx.AnswerStale).reason.startswith("the job has its outcome")
    assert rig.counter("stale") == rig.counter("wasted") == 1


def test_a_bad_image_fails_at_once_with_its_code() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    end = only(rig.fail(grant, "not_an_image"), fx.Finish)
    assert (end.state, end.error_code, end.attempts) == (JobState.FAILED, "not_an_image", 1)
    assert end.error_message == "because of not_an_image"
    assert (end.worker, end.token) == ("w1#1", grant.token)


def test_a_retryable_fault_waits_and_goes_again_until_the_limit() -> None:
    rig = Rig(attempts_max=3)
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    effects = rig.fail(grant, "engine_error", at=0.1, retryable=True)
    assert only(effects, fx.JobChanged).target is JobState.BACKOFF
    assert rig.scheduler.counts() == {"queued": 0, "leased": 0, "backoff": 1}
    for attempt in (2, 3):
        (grant,) = grants(rig.run_until(rig.now + 5.0, "w1#1"))
        assert grant.attempt == attempt
        effects = rig.fail(grant, "engine_error", retryable=True)
    end = only(effects, fx.Finish)
    assert (end.state, end.error_code) == (JobState.FAILED, "attempts_exhausted")
    assert "3 attempts failed" in end.error_message
    assert "engine_error at w1: because of engine_error" in end.error_message
    assert end.token is None, "no result made this outcome"


def test_a_worker_that_fails_everything_is_quarantined() -> None:
    rig = Rig(faults_in_a_row_max=3)
    rig.join("w1#1", slots=4)
    for grant in grants(rig.accept(1, 2, 3, 4))[:3]:
        effects = rig.fail(grant, "engine_error", retryable=True)
    stats = rig.scheduler.worker_stats("w1#1", rig.now)
    assert stats.admission is Admission.QUARANTINED
    assert only(effects, fx.Revoke).job == 4, "what waits there goes elsewhere"
    effects = rig.run_until(31.0, "w1#1")
    assert {grant.job for grant in grants(effects)} == {1, 2, 3, 4}


def test_faults_do_not_make_a_worker_look_fast() -> None:
    rig = Rig()
    rig.join("w1#1")
    before = rig.scheduler.worker_stats("w1#1", 0.0).rate_per_s
    (grant,) = grants(rig.accept(1))
    rig.fail(grant, "engine_error", at=0.001, retryable=True)
    assert rig.scheduler.worker_stats("w1#1", 0.0).rate_per_s == before


def test_a_lease_given_back_keeps_its_attempts_and_does_not_bounce() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    effects = rig.do(ev.LeaseReleased("w1#1", 1, grant.token), 0.1)
    assert only(effects, fx.AttemptEnded).outcome is Outcome.RELEASED
    assert not grants(effects)
    (again,) = grants(rig.run_until(1.0, "w1#1"))
    assert again.attempt == 1


def test_nobody_can_answer_for_another_worker() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.join("w2#1")
    effects = rig.succeed(grant, worker="w2#1")
    assert "not granted for this job to this worker" in only(effects, fx.AnswerStale).reason
    assert rig.state(1) is JobState.LEASED
    rig.do(ev.AttemptStarted("w2#1", 1, grant.token))
    rig.do(ev.LeaseReleased("w2#1", 1, grant.token))
    assert rig.scheduler.worker_stats("w1#1", 0.0).executing == 0
    assert rig.state(1) is JobState.LEASED


def test_a_reconnected_worker_answers_its_old_connections_lease() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.join("w1#2")
    end = only(rig.succeed(grant, worker="w1#2"), fx.Finish)
    assert (end.state, end.worker, end.late) == (JobState.SUCCEEDED, "w1#2", False)


def test_a_lease_finishes_with_the_model_of_its_grant_or_the_one_in_force() -> None:
    for model in (MODEL, "m2"):
        rig = Rig()
        rig.join("w1#1")
        (grant,) = grants(rig.accept(1))
        rig.do(ev.ModelChanged("m2"))
        assert only(rig.succeed(grant, model=model), fx.Finish).state is JobState.SUCCEEDED


def test_a_model_that_nobody_asked_for_is_a_retryable_fault() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    effects = rig.succeed(grant, model="mine")
    assert "made by model mine" in only(effects, fx.AnswerStale).reason
    assert only(effects, fx.AttemptEnded).error_code == "wrong_model"
    assert rig.state(1) is JobState.BACKOFF


# --- no live lease -----------------------------------------------------------------------


def _silenced(rig: Rig) -> fx.Grant:
    """A job whose worker fell silent while it executed it; it waits in the queue again."""
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    rig.run_until(10.0)
    assert rig.state(1) is JobState.QUEUED
    return grant


def test_a_late_success_is_taken_while_the_job_waits() -> None:
    rig = Rig()
    grant = _silenced(rig)
    effects = rig.succeed(grant, at=10.5)
    end = only(effects, fx.Finish)
    assert (end.state, end.late, end.token) == (JobState.SUCCEEDED, True, grant.token)
    assert not of(effects, fx.AttemptEnded), "the attempt has its end: lost"
    assert rig.counter("late_accepted") == 1


def test_a_late_success_revokes_the_lease_that_replaced_it() -> None:
    rig = Rig()
    grant = _silenced(rig)
    (second,) = grants(rig.join("w2#1"))
    rig.start(second)
    effects = rig.succeed(grant)
    assert only(effects, fx.Finish).late
    assert only(effects, fx.Revoke).token == second.token
    assert only(effects, fx.AttemptEnded).outcome is Outcome.CANCELLED
    stale = only(rig.succeed(second), fx.AnswerStale)
    assert stale.worker == "w2#1"
    assert rig.counter("wasted") == 1


def test_a_late_fault_and_another_model_are_stale() -> None:
    rig = Rig()
    grant = _silenced(rig)
    assert "late fault" in only(rig.fail(grant, "not_an_image"), fx.AnswerStale).reason
    rig.do(ev.ModelChanged("m2"))
    assert "not the one in force" in only(rig.succeed(grant), fx.AnswerStale).reason
    assert rig.state(1) is JobState.QUEUED


def test_a_result_of_an_earlier_life_is_taken_and_audited() -> None:
    rig = Rig()
    rig.do(ev.JobRecovered(1, 0, ()))
    rig.do(ev.WorkerJoined("w1#1", "w1", "i"))
    effects = rig.do(ev.ResultArrived("w1#1", 1, FIRST_TOKEN - 3, MODEL))
    assert only(effects, fx.AttemptEnded).outcome is Outcome.SUCCEEDED
    end = only(effects, fx.Finish)
    assert (end.state, end.late, end.attempts) == (JobState.SUCCEEDED, True, 1)


def test_a_worker_that_is_gone_gets_its_answer_as_stale() -> None:
    rig = Rig()
    effects = rig.do(ev.ResultArrived("nobody#1", 1, FIRST_TOKEN, MODEL))
    assert only(effects, fx.AnswerStale).worker == "nobody#1"


LATE = LateResult(
    token=1005,
    worker="w1",
    model="m",
    success=True,
    job_open=True,
    granted=((1004, "w2"), (1005, "w1")),
    model_in_force="m",
    first_of_life=1000,
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"token": 999, "granted": (), "worker": "w9"}, None),
        ({"model_in_force": None, "model": "any"}, None),
        ({"job_open": False}, "outcome already"),
        ({"success": False}, "late fault"),
        ({"model": "old"}, "model old is not the one in force"),
        ({"token": 1004}, "not granted"),
        ({"token": 1006}, "not granted"),
        ({"worker": None}, "not granted"),
        ({"granted": ()}, "not granted"),
        ({"first_of_life": None, "token": 1, "granted": ()}, "not granted"),
        ({"token": 1000, "granted": ()}, "not granted"),
    ],
)
def test_the_rule_for_late_results(changes: dict[str, Any], reason: str | None) -> None:
    said = refusal(replace(LATE, **changes))
    assert (said is None) == (reason is None)
    assert reason is None or (said is not None and reason in said)
