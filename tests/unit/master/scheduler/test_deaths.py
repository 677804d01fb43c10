"""A worker dies, leaves or comes back: who is blamed, what goes again, what is poison."""

from __future__ import annotations

from master.scheduler import effects as fx
from master.scheduler import events as ev
from master.states import JobState, Outcome
from tests.unit.master.scheduler.rig import Rig, grants, of, only


def test_only_the_executing_job_is_blamed_and_both_go_again_at_once() -> None:
    rig = Rig()
    rig.join("w1#1", slots=2)
    first, second = grants(rig.accept(1, 2))
    rig.start(first, at=0.1)
    rig.join("w2#1", slots=2)
    effects = rig.gone("w1#1", at=0.2)
    ended = {end.job: end for end in of(effects, fx.AttemptEnded)}
    assert (ended[1].outcome, ended[1].blamed, ended[1].started) == (Outcome.LOST, True, 0.1)
    assert (ended[2].outcome, ended[2].blamed, ended[2].started) == (Outcome.LOST, False, None)
    again = {grant.job: grant for grant in grants(effects)}
    assert {grant.worker for grant in again.values()} == {"w2#1"}
    assert (again[1].attempt, again[1].alone) == (2, True)
    assert (again[2].attempt, again[2].alone) == (1, False)
    assert min(grant.token for grant in again.values()) > second.token


def test_what_comes_back_stands_before_what_is_fresh() -> None:
    rig = Rig()
    rig.join("w1#1", slots=2)
    rig.accept(1, 2, 3, 4)
    rig.gone("w1#1")
    assert list(rig.scheduler.queued_jobs()) == [1, 2, 3, 4]
    assert [grant.job for grant in grants(rig.join("w2#1", slots=3))] == [1, 2, 3]


def test_three_blamed_deaths_are_poison_and_the_message_names_the_workers() -> None:
    rig = Rig()
    effects = rig.accept(1)
    for name in ("anna", "bert", "carl"):
        effects = rig.join(f"{name}#1")
        rig.start(grants(effects)[0])
        effects = rig.gone(f"{name}#1")
    end = only(effects, fx.Finish)
    assert (end.state, end.error_code, end.attempts) == (JobState.FAILED, "poison", 3)
    assert end.error_message == "3 workers died while they executed it: anna, bert, carl"
    assert rig.state(1) is None
    assert rig.counter("poison") == 1


def test_an_innocent_neighbour_clears_itself_alone() -> None:
    rig = Rig()
    rig.join("w1#1", slots=2)
    poison, innocent = grants(rig.accept(1, 2))
    rig.start(poison)
    rig.start(innocent)
    rig.gone("w1#1")
    again = {g.job: g for g in grants(rig.join("w2#1", slots=2))}
    assert again[1].alone and again[2].alone
    rig.start(again[2])
    assert only(rig.succeed(again[2]), fx.Finish).state is JobState.SUCCEEDED
    rig.start(again[1])
    rig.gone("w2#1")
    (third,) = grants(rig.join("w3#1"))
    rig.start(third)
    assert only(rig.gone("w3#1"), fx.Finish).error_code == "poison"


def test_a_job_goes_back_to_the_worker_that_it_harmed_rather_than_to_none() -> None:
    rig = Rig()
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    rig.gone("w1#1")
    assert [again.job for again in grants(rig.join("w1#2", incarnation="i2"))] == [1]


def test_among_two_idle_workers_the_unharmed_one_gets_it() -> None:
    rig = Rig(backoff_base_s=1.0, backoff_cap_s=1.0)
    rig.join("w1#1", slots=1)
    (grant,) = grants(rig.accept(1))
    rig.join("w2#1", slots=1)
    rig.fail(grant, "engine_error", at=0.1, retryable=True)
    effects = rig.run_until(1.5, "w1#1", "w2#1")
    assert [grant.worker for grant in grants(effects)] == ["w2#1"]


def test_a_clean_leave_blames_nothing() -> None:
    rig = Rig()
    rig.join("w1#1")
    first, _ = grants(rig.accept(1, 2))
    rig.start(first)
    effects = rig.gone("w1#1", clean=True)
    ended = of(effects, fx.AttemptEnded)
    assert [(end.outcome, end.blamed) for end in ended] == [(Outcome.RELEASED, False)] * 2
    assert rig.scheduler.state(1) == (JobState.QUEUED, 0, None, None)
    assert [grant.alone for grant in grants(rig.join("w2#1"))] == [False, False]


def test_the_same_incarnation_on_a_new_connection_is_pardoned() -> None:
    rig = Rig()
    for number in (1, 2, 3, 4):
        effects = rig.join(f"w1#{number}")
        if number == 1:
            effects = rig.accept(1)
        (grant,) = grants(effects)
        rig.start(grant)
        effects = rig.gone(f"w1#{number}")
        assert not of(effects, fx.Finish), "its connection died, the worker did not"
    rig.join("w1#5")
    assert rig.counter("pardoned") == 4
    assert rig.scheduler.worker_stats("w1#5", rig.now).blamed_deaths == 0


def test_another_incarnation_of_the_name_is_not_pardoned() -> None:
    rig = Rig()
    rig.join("w1#1", incarnation="a")
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    rig.gone("w1#1")
    rig.join("w1#2", incarnation="b")
    assert rig.counter("pardoned") == 0
    assert rig.scheduler.worker_stats("w1#2", rig.now).blamed_deaths == 1


def test_a_recovered_job_keeps_its_blames_and_its_attempts() -> None:
    rig = Rig()
    rig.do(ev.JobRecovered(7, 2, ["anna", "bert"]))
    (grant,) = grants(rig.join("w1#1"))
    assert (grant.attempt, grant.alone) == (3, True)
    rig.start(grant)
    end = only(rig.gone("w1#1"), fx.Finish)
    assert end.error_code == "poison" and "anna, bert, w1" in end.error_message


def test_after_a_storm_a_new_core_judges_nobody_by_old_deaths_alone() -> None:
    rig = Rig()
    for job in range(1, 11):
        effects = rig.do(ev.JobRecovered(job, 4, ["anna", "bert", "anna", "carl"]))
        assert not of(effects, fx.Finish)
    rig.start(grants(rig.join("w1#1"))[0])
    assert not of(rig.gone("w1#1"), fx.Finish), "workers died under ten jobs: none stands out"


def test_a_poison_that_was_recovered_takes_one_worker_more() -> None:
    rig = Rig()
    rig.do(ev.JobRecovered(7, 3, ["anna", "bert", "anna"]))
    (grant,) = grants(rig.join("w1#1"))
    rig.start(grant)
    assert only(rig.gone("w1#1"), fx.Finish).error_code == "poison"


def test_a_job_recovered_with_all_the_deaths_that_any_may_have_is_poison_at_once() -> None:
    rig = Rig(poison_deaths_max=4)
    effects = rig.do(ev.JobRecovered(7, 4, ["anna", "bert", "anna", "carl"]))
    assert only(effects, fx.Finish).error_code == "poison"


def test_where_workers_die_under_every_job_three_deaths_prove_nothing() -> None:
    rig = Rig()
    for job in range(1, 21):  # one death under each of twenty jobs, which then succeed
        rig.accept(job)
        rig.start(only(rig.join(f"a{job}#1"), fx.Grant))
        rig.gone(f"a{job}#1")
        again = only(rig.join(f"b{job}#1"), fx.Grant)
        rig.start(again)
        rig.succeed(again)
        rig.gone(f"b{job}#1")
    rig.accept(99)
    deaths = 0
    while rig.state(99) is not None:
        deaths += 1
        rig.start(only(rig.join(f"c{deaths}#1"), fx.Grant))
        rig.gone(f"c{deaths}#1")
    # 20 of 40 executions died: 20 / (40 + 10) to the power of 16 is below one in a million.
    assert deaths == 16
    assert rig.counter("poison") == 1


def test_deaths_have_a_limit_of_their_own_beside_that_of_the_attempts() -> None:
    rig = Rig(attempts_max=1)
    rig.join("w1#1")
    (grant,) = grants(rig.accept(1))
    rig.start(grant)
    assert not of(rig.gone("w1#1"), fx.Finish), "a death is no fault of the image's"
    (grant,) = grants(rig.join("w2#1"))
    rig.start(grant)
    end = only(rig.fail(grant, "wrong_model", retryable=True), fx.Finish)
    assert (end.error_code, end.attempts) == ("attempts_exhausted", 2)


def test_a_hedge_survives_the_death_of_the_first_worker() -> None:
    rig = Rig()
    rig.join("w1#1", slots=1)
    (first,) = grants(rig.accept(1))
    rig.start(first)
    rig.join("w2#1", slots=1)
    effects = rig.run_until(3.0, "w1#1", "w2#1")
    (hedge,) = grants(effects)
    assert hedge.hedge and hedge.worker == "w2#1"
    effects = rig.gone("w1#1")
    assert not grants(effects) and not of(effects, fx.JobChanged)
    end = only(rig.succeed(hedge), fx.Finish)
    assert (end.state, end.attempts, end.worker) == (JobState.SUCCEEDED, 2, "w2#1")
