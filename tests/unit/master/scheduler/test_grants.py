"""Who gets what: capacity, tokens, the tail rule, hedges."""

from __future__ import annotations

import random

from master.scheduler import Scheduler
from master.scheduler import effects as fx
from master.scheduler import events as ev
from master.states import JobState, Outcome
from tests.unit.master.scheduler.rig import FIRST_TOKEN, MODEL, Rig, grants, of, only


def _train(rig: Rig, key: str, seconds: float, jobs: range, *beating: str) -> None:
    """Let a worker do jobs one after the other, each in `seconds`."""
    for job in jobs:
        (grant,) = grants(rig.accept(job))
        assert grant.worker == key
        rig.start(grant)
        rig.run_until(rig.now + seconds)
        for beats in (key, *beating):
            rig.beat(beats)
        rig.succeed(grant)


def _pair(rig: Rig, *, slots: int = 4) -> None:
    """A fast worker (10 a second) and a slow one (1 a second), both measured."""
    rig.join("slow#1", slots=slots)
    _train(rig, "slow#1", 1.0, range(1, 13))
    rig.do(ev.WorkerUnready("slow#1"))
    rig.join("fast#1", slots=slots)
    _train(rig, "fast#1", 0.1, range(13, 133), "slow#1")
    rig.do(ev.WorkerReady("slow#1", slots, MODEL))


def test_no_more_leases_than_slots() -> None:
    rig = Rig()
    rig.join("w1#1", slots=3)
    assert len(grants(rig.accept(*range(1, 10)))) == 3
    assert rig.scheduler.counts() == {"queued": 6, "leased": 3, "backoff": 0}


def test_the_next_job_goes_where_it_finishes_first() -> None:
    rig = Rig()
    _pair(rig)
    effects = rig.accept(*range(200, 300))
    assert [grant.worker for grant in grants(effects)] == ["fast#1"] * 4 + ["slow#1"] * 4


def test_a_slow_worker_does_not_get_the_tail() -> None:
    rig = Rig()
    _pair(rig)
    fast = grants(rig.accept(*range(200, 206)))
    assert {grant.worker for grant in fast} == {"fast#1"} and len(fast) == 4
    assert rig.scheduler.counts()["queued"] == 2, "the slow one is idle, and left so"
    rig.start(fast[0])
    assert [g.worker for g in grants(rig.succeed(fast[0], at=rig.now + 0.1))] == ["fast#1"]


def test_the_tail_waits_no_longer_than_the_slow_worker_would_take() -> None:
    rig = Rig()
    _pair(rig)
    for grant in grants(rig.accept(*range(200, 206))):
        rig.start(grant)
    since = rig.now
    effects: list[fx.Effect] = []
    while not grants(effects):
        effects = rig.run_until(rig.now + 0.1, "slow#1")
        rig.beat("fast#1", progress=0)
    assert grants(effects)[0].worker == "slow#1"
    assert 0.9 <= rig.now - since <= 1.3


def test_without_tokens_nothing_is_granted_and_with_them_everything() -> None:
    rig = Rig(tokens=2)
    rig.join("w1#1", slots=8)
    effects = rig.accept(1, 2, 3, 4)
    assert [grant.token for grant in grants(effects)] == [FIRST_TOKEN, FIRST_TOKEN + 1]
    assert only(effects, fx.ReserveTokens).last == FIRST_TOKEN + 3
    assert [grant.job for grant in grants(rig.reserve(FIRST_TOKEN + 3, FIRST_TOKEN + 3))] == [3, 4]


def test_before_the_first_block_nothing_is_granted() -> None:
    rig = Rig()
    rig.scheduler = Scheduler(rig.config, random.Random(1))
    rig.join("w1#1")
    assert not rig.accept(1)


def test_no_grants_while_unready_draining_or_shutting_down() -> None:
    rig = Rig()
    rig.join("w1#1")
    rig.do(ev.WorkerUnready("w1#1"))
    assert not grants(rig.accept(1))
    assert grants(rig.do(ev.WorkerReady("w1#1", 2, MODEL)))
    effects = rig.do(ev.DrainWorkerAsked("w1#1", "asked"))
    assert only(effects, fx.AskDrain).worker == "w1#1"
    assert not grants(rig.accept(2))
    rig.join("w2#1", slots=1)
    assert rig.state(2) is JobState.LEASED
    rig.do(ev.WorkerDraining("w2#1"))
    rig.do(ev.ShutdownAsked())
    assert not grants(rig.join("w3#1")) and not grants(rig.accept(3))


def test_results_are_taken_while_shutting_down() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.do(ev.ShutdownAsked())
    assert only(rig.succeed(grant), fx.Finish).state is JobState.SUCCEEDED


def test_a_new_model_needs_workers_that_are_ready_with_it() -> None:
    rig = Rig()
    rig.join("w1#1")
    rig.do(ev.ModelChanged("m2"))
    assert not grants(rig.accept(1))
    assert not grants(rig.do(ev.WorkerReady("w1#1", 2, MODEL)))
    assert grants(rig.do(ev.WorkerReady("w1#1", 2, "m2")))


def test_cancelled_jobs_end_at_once_wherever_they_are() -> None:
    rig = Rig()
    rig.join("w1#1", slots=1)
    (grant,) = grants(rig.accept(1, 2))
    rig.start(grant)
    effects = rig.do(ev.JobsCancelled([1, 2, 77], "asked"))
    ends = {end.job: end for end in of(effects, fx.Finish)}
    assert {job: (end.state, end.attempts) for job, end in ends.items()} == {
        1: (JobState.CANCELLED, 1),
        2: (JobState.CANCELLED, 0),
    }
    assert only(effects, fx.Revoke).token == grant.token
    assert only(effects, fx.AttemptEnded).outcome is Outcome.CANCELLED
    assert only(rig.succeed(grant), fx.AnswerStale).job == 1


# --- hedges ------------------------------------------------------------------------------


def _straggler(rig: Rig) -> tuple[fx.Grant, fx.Grant]:
    """A job that takes far too long on w1, and its hedge on w2."""
    rig.join("w1#1", slots=1)
    (first,) = grants(rig.accept(1))
    rig.start(first)
    rig.join("w2#1", slots=1)
    (hedge,) = grants(rig.run_until(2.5, "w1#1", "w2#1"))
    return first, hedge


def test_a_straggler_gets_one_hedge_on_another_worker() -> None:
    rig = Rig()
    first, hedge = _straggler(rig)
    assert (hedge.job, hedge.worker, hedge.hedge, hedge.attempt) == (1, "w2#1", True, 1)
    rig.join("w3#1", slots=1)
    assert not grants(rig.run_until(30.0, "w1#1", "w2#1", "w3#1"))
    assert rig.counter("hedged") == 1 and first.token < hedge.token


def test_the_first_result_wins_and_the_other_is_waste() -> None:
    rig = Rig()
    first, hedge = _straggler(rig)
    rig.start(hedge)
    effects = rig.succeed(hedge, at=2.6)
    assert only(effects, fx.Finish).token == hedge.token
    assert only(effects, fx.Revoke).token == first.token
    outcomes = {end.token: end.outcome for end in of(effects, fx.AttemptEnded)}
    assert outcomes == {hedge.token: Outcome.SUCCEEDED, first.token: Outcome.CANCELLED}
    assert only(rig.succeed(first, at=9.0), fx.AnswerStale).token == first.token
    assert (rig.counter("hedge_wins"), rig.counter("wasted")) == (1, 1)


def test_a_retryable_fault_of_one_leaves_the_other_running() -> None:
    rig = Rig()
    first, hedge = _straggler(rig)
    effects = rig.fail(first, "engine_error", retryable=True)
    assert not of(effects, fx.Finish) and not of(effects, fx.JobChanged)
    assert rig.state(1) is JobState.LEASED
    assert only(rig.succeed(hedge), fx.Finish).attempts == 2


def test_a_suspects_job_is_hedged_at_once() -> None:
    rig = Rig(hedge_min_s=100.0)
    rig.join("w1#1", slots=1)
    rig.run_until(30.0, "w1#1")
    rig.join("w2#1", slots=1)
    rig.accept(1)
    effects: list[fx.Effect] = []
    for _ in range(5):
        rig.beat("w2#1")
        effects += rig.run_until(rig.now + 0.5)
    suspected = only(effects[: effects.index(grants(effects)[0])], fx.LivenessChanged)
    assert suspected.worker == "w1#1"
    assert grants(effects)[0].hedge


def test_hedges_stay_within_their_budget() -> None:
    rig = Rig(hedge_burst=2.0, hedge_share=0.01)
    rig.join("w1#1", slots=8)
    for grant in grants(rig.accept(*range(1, 9))):
        rig.start(grant)
    rig.join("w2#1", slots=8)
    assert len(grants(rig.run_until(20.0, "w1#1", "w2#1"))) == 2


def test_a_straggler_is_measured_by_the_usual_duration() -> None:
    rig = Rig()
    rig.join("w1#1", slots=1)
    rig.join("w2#1", slots=1)
    for job in range(1, 61):
        (grant,) = grants(rig.accept(job))
        rig.start(grant)
        rig.run_until(rig.now + 1.0, "w1#1", "w2#1")
        rig.succeed(grant)
    began = rig.now
    (slow,) = grants(rig.accept(100))
    rig.start(slow)
    assert not grants(rig.run_until(began + 1.9, "w1#1", "w2#1"))
    assert grants(rig.run_until(began + 2.0, "w1#1", "w2#1"))[0].hedge


def test_while_jobs_wait_nothing_is_hedged() -> None:
    rig = Rig()
    rig.join("w1#1", slots=1)
    rig.join("w2#1", slots=1)
    for grant in grants(rig.accept(1, 2, 3)):
        rig.start(grant)
    assert not grants(rig.run_until(20.0, "w1#1", "w2#1"))


def test_a_suspected_job_is_never_hedged() -> None:
    rig = Rig()
    rig.do(ev.JobRecovered(1, 1, ["anna"]))
    (grant,) = grants(rig.join("w1#1"))
    rig.start(grant)
    rig.join("w2#1")
    assert not grants(rig.run_until(30.0, "w1#1", "w2#1"))


def test_a_hedge_does_not_go_where_the_job_failed_before() -> None:
    rig = Rig(backoff_base_s=0.01, backoff_cap_s=0.01)
    rig.join("w1#1", slots=1)
    (grant,) = grants(rig.accept(1))
    rig.join("w2#1", slots=1)
    rig.fail(grant, "engine_error", at=0.1, retryable=True)
    (second,) = grants(rig.run_until(20.0, "w1#1", "w2#1"))
    assert second.worker == "w2#1"


# --- what people see ---------------------------------------------------------------------


def test_views_of_jobs_and_of_the_whole() -> None:
    rig = Rig()
    assert rig.scheduler.eta_s() is None
    rig.join("w1#1", slots=1)
    (grant,) = grants(rig.accept(1, 2, 3))
    assert rig.scheduler.state(1) == (JobState.LEASED, 0, "w1#1", None)
    rig.start(grant, at=0.5)
    assert rig.scheduler.state(1) == (JobState.LEASED, 1, "w1#1", 0.5)
    assert rig.scheduler.live_jobs() == [1]
    assert list(rig.scheduler.queued_jobs()) == [2, 3]
    assert rig.scheduler.eta_s() == 3 / 20.0
    assert rig.scheduler.state(99) is None
    stats = rig.scheduler.worker_stats("w1#1", 0.5)
    assert (stats.slots, stats.held, stats.executing) == (1, 1, 1)
    assert rig.scheduler.worker_stats("nobody#1", 0.5).held == 0
