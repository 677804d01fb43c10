"""One seed, every schedule: the same again, and no dimension moved by another."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.scenario import Arrivals, Fault, FaultKind, Faults, Load, Scenario
from experiments.schedule import Place, arrivals, blocks, digest, faults, one_death
from experiments.seeds import Dimension, number, stream

PLACE = Place("0.2", 1)
CHAOS = Faults(per_minute=60, kinds=(FaultKind.CRASH, FaultKind.HANG), shortest_s=1, longest_s=2)


def test_a_stream_is_the_same_again_and_unlike_every_other() -> None:
    places = [(seed, d, r) for seed in (1, 2) for d in Dimension for r in (0, 1)]
    first = [stream(s, d, "p", r).random(4).tolist() for s, d, r in places]
    assert first == [stream(s, d, "p", r).random(4).tolist() for s, d, r in places]
    assert len({tuple(numbers) for numbers in first}) == len(places)


def test_the_numbers_do_not_change_between_versions() -> None:
    # What a manifest names must give the same run after an upgrade.
    assert number(1, Dimension.ARRIVALS, "0.2", 0) == 1267704271
    assert stream(7, Dimension.FAULTS, "x", 3).integers(1000, size=3).tolist() == [485, 774, 278]


@given(
    st.lists(st.text("ab01.", min_size=1), min_size=1, max_size=9, unique=True), st.integers(1, 6)
)
def test_each_block_holds_every_point_once(points: list[str], replicates: int) -> None:
    places = blocks(points, replicates, seed=5)
    for replicate in range(replicates):
        block = places[replicate * len(points) : (replicate + 1) * len(points)]
        assert Counter(p.point for p in block) == Counter(points)
        assert {p.replicate for p in block} == {replicate}


def test_blocks_are_shuffled_each_in_its_own_way() -> None:
    points = [str(n) for n in range(8)]
    places = blocks(points, 4, seed=5)
    orders = [tuple(p.point for p in places[n : n + 8]) for n in range(0, 32, 8)]
    assert len(set(orders)) == 4
    assert places == blocks(points, 4, seed=5) != blocks(points, 4, seed=6)


@pytest.mark.parametrize("kind", [Arrivals.POISSON, Arrivals.BURSTS])
def test_arrivals_have_the_rate_that_was_asked_for(kind: Arrivals) -> None:
    load = Load(kind=kind, rate_per_s=50, burst_images=10)
    times = list(islice(arrivals(load, PLACE, 3), 20_000))
    assert times == sorted(times)
    assert times == list(islice(arrivals(load, PLACE, 3), 20_000))
    assert 20_000 / times[-1] == pytest.approx(50, rel=0.08)
    together = Counter(times).most_common(1)[0][1]
    assert together == (1 if kind is Arrivals.POISSON else 10)


def test_poisson_gaps_are_as_wide_as_they_are_long() -> None:
    """An exponential's standard deviation is its mean; even spacing would have none."""
    times = list(islice(arrivals(Load(kind=Arrivals.POISSON, rate_per_s=10), PLACE, 3), 20_000))
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((g - mean) ** 2 for g in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05)


def test_a_closed_loop_has_no_arrivals() -> None:
    with pytest.raises(ValueError, match="closed loop"):
        next(arrivals(Load(), PLACE, 1))


def test_faults_are_drawn_within_the_run_and_the_same_again() -> None:
    drawn = faults(CHAOS, 3, 600.0, PLACE, 9)
    assert drawn == faults(CHAOS, 3, 600.0, PLACE, 9) != faults(CHAOS, 3, 600.0, PLACE, 10)
    assert len(drawn) == pytest.approx(600, rel=0.15)
    assert all(0 <= f.at_s < 600 and 1 <= f.for_s <= 2 and 1 <= f.worker <= 3 for f in drawn)
    assert {f.kind for f in drawn} == {FaultKind.CRASH, FaultKind.HANG}
    assert {f.worker for f in drawn} == {1, 2, 3}
    assert [f.at_s for f in drawn] == sorted(f.at_s for f in drawn)


def test_a_timeline_stays_and_chance_comes_beside_it() -> None:
    mine = Fault(at_s=3, kind=FaultKind.CORE_CRASH)
    alone = Faults(timeline=(mine,))
    assert faults(alone, 3, 60.0, PLACE, 1) == [mine]
    assert mine in faults(Faults(timeline=(mine,), per_minute=60), 3, 60.0, PLACE, 1)


def test_other_arrivals_leave_the_faults_alone() -> None:
    before = faults(CHAOS, 3, 60.0, PLACE, 4)
    list(islice(arrivals(Load(kind=Arrivals.POISSON), PLACE, 4), 100))
    assert faults(CHAOS, 3, 60.0, PLACE, 4) == before


def test_one_worker_dies_in_as_many_runs_as_asked_for() -> None:
    wanted = Faults(failure_rate_per_run=0.4)
    deaths = [one_death(wanted, 3, 4, Place("f", n), 1) for n in range(2000)]
    assert sum(worker > 0 for worker, _ in deaths) / 2000 == pytest.approx(0.4, abs=0.04)
    assert {worker for worker, _ in deaths} == {0, 1, 2, 3}
    assert {after for worker, after in deaths if worker} == {0, 1, 2, 3}
    assert one_death(Faults(), 3, 4, PLACE, 1) == (0, 0)


def test_the_digest_names_the_schedule() -> None:
    load = Load(kind=Arrivals.POISSON, rate_per_s=20)
    one = Scenario(name="s", title="t", faults=CHAOS, load=load)
    again = Scenario(name="another name", title="t", faults=CHAOS, load=load)
    assert digest(one, PLACE) == digest(again, PLACE)
    change = msgspec.structs.replace
    others = [
        digest(change(one, seed=2), PLACE),
        digest(one, Place("0.2", 2)),
        digest(change(one, load=change(load, rate_per_s=21)), PLACE),
        digest(change(one, faults=change(CHAOS, longest_s=3)), PLACE),
    ]
    assert len({digest(one, PLACE), *others}) == 5
