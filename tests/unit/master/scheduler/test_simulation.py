"""Whole clusters on made-up time: how long the work takes, and that faults lose nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from master.states import JobState
from tests.unit.master.scheduler.rig import Rig
from tests.unit.master.scheduler.simulation import Simulation, SimWorker


def _around(mean_s: float, seed: int) -> Callable[[], float]:
    """Service times with a coefficient of variation of about 0.3."""
    rng = random.Random(seed)
    return lambda: mean_s * rng.uniform(0.5, 1.5)


def _workers(*means_s: float, slots: int = 4) -> list[SimWorker]:
    return [
        SimWorker(f"w{number}", _around(mean_s, number), slots=slots)
        for number, mean_s in enumerate(means_s, 1)
    ]


def _ideal_s(jobs: int, *means_s: float) -> float:
    """Nobody idle until the very end."""
    return jobs / sum(1 / mean_s for mean_s in means_s)


@pytest.mark.parametrize(
    "means_s",
    [
        (0.05, 0.05, 0.05, 0.05),
        (0.02, 0.5),
        (0.01, 1.0),
        (0.02, 0.03, 0.05, 0.1, 0.2, 0.4),
        (0.05, 0.05, 3.0, 3.0, 3.0),
    ],
)
def test_the_work_is_done_nearly_as_soon_as_it_could_be(means_s: tuple[float, ...]) -> None:
    jobs = 400
    simulation = Simulation(Rig(), _workers(*means_s))
    makespan_s = simulation.run(jobs)
    assert makespan_s <= 1.15 * _ideal_s(jobs, *means_s) + 0.1
    assert {end.state for end in simulation.rig.ledger.finished.values()} == {JobState.SUCCEEDED}


def test_without_the_tail_rule_a_slow_worker_keeps_everybody_waiting() -> None:
    means_s = (0.02, 0.5)
    results = []
    for tail_factor in (1.25, 1e9):
        rig = Rig(tail_factor=tail_factor, hedge_min_s=1e6)
        Simulation(rig, _workers(*means_s)).run(100)
        results.append(rig.now)
    with_rule_s, without_s = results
    assert with_rule_s < 0.8 * without_s


@pytest.mark.parametrize("seed", range(5))
def test_deaths_lose_nothing_and_cost_what_they_must(seed: int) -> None:
    workers = _workers(0.05, 0.05, 0.05)
    simulation = Simulation(Rig(seed=seed), workers, seed=seed)
    for number in range(12):
        worker = simulation.rng.choice(workers)
        when = 0.4 * (number + 1) + simulation.rng.random() * 0.2
        simulation.at(when, lambda w=worker: simulation.kill(w, back_after_s=0.5))
    makespan_s = simulation.run(300)
    assert {end.state for end in simulation.rig.ledger.finished.values()} == {JobState.SUCCEEDED}
    # 12 deaths with 0.5 s of absence each, one executing job lost each.
    assert makespan_s <= 1.3 * (_ideal_s(300, 0.05, 0.05, 0.05) + 12 * 0.55 / 3) + 0.5
    blamed = simulation.rig.counter("blamed")
    assert 0 < blamed <= 12


def test_a_stopped_worker_costs_its_share_and_comes_back() -> None:
    workers = _workers(0.05, 0.05, 0.05)
    simulation = Simulation(Rig(), workers)
    simulation.at(1.0, lambda: simulation.stop(workers[0], 20.0))
    simulation.run(1500)
    ends = simulation.rig.ledger.finished.values()
    assert {end.state for end in ends} == {JobState.SUCCEEDED}
    after = [end for end in ends if end.worker == "w1#1" and (end.started or 0) > 21.0]
    assert len(after) > 20, "after SIGCONT it works again"
    assert simulation.rig.counter("died") == simulation.rig.counter("revived") == 1
    assert simulation.rig.counter("stale") + simulation.rig.counter("late_accepted") > 0
    assert simulation.rig.counter("blamed") == 0


def test_hedges_cut_the_tail_of_a_worker_that_hangs_now_and_then() -> None:
    def hanging(mean_s: float, seed: int) -> Callable[[], float]:
        rng, usual = random.Random(seed), _around(mean_s, seed)
        return lambda: 30.0 if rng.random() < 0.01 else usual()

    makespans_s = []
    for hedge_min_s in (1.0, 1e6):
        workers = [SimWorker(f"w{n}", hanging(0.05, n), width=2) for n in (1, 2, 3)]
        rig = Rig(hedge_min_s=hedge_min_s)
        makespans_s.append(Simulation(rig, workers).run(200))
    hedged_s, unhedged_s = makespans_s
    assert unhedged_s > 29.0
    assert hedged_s < 0.5 * unhedged_s


def test_a_storm_that_kills_four_of_five_executions_costs_no_job_its_result() -> None:
    workers = _workers(0.05, 0.05, 0.05)
    simulation = Simulation(Rig(), workers)
    begin, chance = simulation._begin, random.Random(5)

    def begin_or_die(worker: SimWorker) -> None:
        before = len(worker.executing)
        begin(worker)
        if len(worker.executing) > before and chance.random() < 0.8:
            simulation._later(worker, lambda: simulation.kill(worker, back_after_s=0.5), 0.01)

    simulation._begin = begin_or_die  # type: ignore[method-assign]
    simulation.run(200)
    ends = Counter(end.state for end in simulation.rig.ledger.finished.values())
    assert ends == {JobState.SUCCEEDED: 200}
    assert simulation.rig.counter("blamed") > 400


def test_poison_takes_three_workers_and_nobody_else() -> None:
    workers = _workers(0.05, 0.05, 0.05)
    simulation = Simulation(Rig(), workers)
    begin = simulation._begin

    def begin_or_die(worker: SimWorker) -> None:
        begin(worker)
        if any(grant.job == 50 for grant in worker.executing.values()):
            simulation._later(worker, lambda: simulation.kill(worker, back_after_s=0.5), 0.01)

    simulation._begin = begin_or_die  # type: ignore[method-assign]
    simulation.run(200)
    failed = [e for e in simulation.rig.ledger.finished.values() if e.state is JobState.FAILED]
    assert [(end.job, end.error_code) for end in failed] == [(50, "poison")]
    assert simulation.rig.counter("blamed") == 3
