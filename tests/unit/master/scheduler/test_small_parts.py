"""Deadlines, tokens, rates, backoff, configuration: the parts without a rule of their own."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.detector import DetectorConfig
from master.scheduler import SchedulerConfig
from master.scheduler.backoff import backoff_s
from master.scheduler.deadlines import Deadlines
from master.scheduler.rates import Rate
from master.scheduler.tokens import TokenBlock
from wire.errors import LocalFault

# --- deadlines ---------------------------------------------------------------------------


def test_a_moved_deadline_counts_and_the_old_one_does_not() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 5.0)
    deadlines.set("b", 6.0)
    deadlines.set("a", 9.0)
    assert deadlines.first() == 6.0
    assert list(deadlines.take_due(8.0)) == ["b"]
    deadlines.forget("a")
    assert deadlines.first() is None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.floats(0, 100))), max_size=300)
)
def test_deadlines_are_a_sorted_map_within_bounded_memory(
    steps: list[tuple[int, float | None]],
) -> None:
    deadlines, model = Deadlines[int](), dict[int, float]()
    for key, due in steps:
        if due is None:
            deadlines.forget(key)
            model.pop(key, None)
        else:
            deadlines.set(key, due)
            model[key] = due
        assert deadlines.first() == min(model.values(), default=None)
        assert len(deadlines._heap) <= 2 * len(model) + 65
    assert sorted(deadlines.take_due(50.0)) == sorted(k for k, v in model.items() if v <= 50.0)


# --- tokens ------------------------------------------------------------------------------


def test_tokens_come_from_the_block_and_the_next_is_asked_for_at_half() -> None:
    tokens = TokenBlock(retry_s=5.0)
    assert tokens.left == 0 and tokens.wanted(0.0) is None
    tokens.reserved(100, 109)
    assert [tokens.take() for _ in range(4)] == [100, 101, 102, 103]
    assert tokens.wanted(1.0) is None
    tokens.take()
    wanted = tokens.wanted(2.0)
    assert wanted is not None and wanted.last == 119
    assert tokens.wanted(3.0) is None
    tokens.reserved(119, 119)
    assert tokens.left == 15
    assert tokens.first_of_life == 100


def test_an_unanswered_request_for_tokens_is_made_again() -> None:
    tokens = TokenBlock(retry_s=5.0)
    tokens.reserved(1, 2)
    tokens.take()
    assert tokens.wanted(10.0) is not None
    assert tokens.next_deadline() == 15.0
    assert tokens.wanted(14.9) is None
    assert tokens.wanted(15.0) is not None


# --- rates -------------------------------------------------------------------------------


def test_a_steady_worker_is_measured_exactly_in_the_end() -> None:
    rate = Rate(prior_per_s=20.0, memory_s=10.0)
    rate.begin(0.0)
    for number in range(1, 201):
        rate.complete(number * 0.25)
    assert rate.per_s == pytest.approx(4.0, rel=0.01)


def test_batches_do_not_look_faster_than_they_are() -> None:
    rate = Rate(prior_per_s=20.0, memory_s=10.0)
    rate.begin(0.0)
    for batch in range(1, 41):
        for _ in range(8):
            rate.complete(batch * 1.0)
    assert rate.per_s == pytest.approx(8.0, rel=0.15)


def test_idle_time_does_not_count_and_a_slow_job_does() -> None:
    rate = Rate(prior_per_s=20.0, memory_s=10.0)
    rate.begin(0.0)
    rate.complete(0.1)
    rate.begin(1000.0)
    rate.complete(1000.1)
    assert rate.per_s > 9.0
    rate.begin(2000.0)
    rate.complete(2040.0)
    assert rate.per_s == pytest.approx(1 / 40, rel=0.1)


def test_a_worker_that_answers_nothing_looks_slower_and_recovers() -> None:
    rate = Rate(prior_per_s=20.0, memory_s=10.0)
    rate.begin(0.0)
    rate.age(3.0)
    assert rate.per_s == pytest.approx(1 / 3, rel=0.15)
    for number in range(31, 131):
        rate.complete(number * 0.1)
    assert rate.per_s > 5.0


# --- backoff -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempts", "bound_s"), [(1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (5000, 30.0)]
)
def test_backoff_has_full_jitter_below_the_exponential(attempts: int, bound_s: float) -> None:
    rng = random.Random(7)
    waits = [backoff_s(attempts, 0.5, 30.0, rng) for _ in range(500)]
    assert 0 <= min(waits) < 0.1 * bound_s
    assert 0.9 * bound_s < max(waits) <= bound_s


# --- configuration -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"attempts_max": 0}, "attempts_max is 0"),
        ({"lease_ttl_s": -1.0}, "lease_ttl_s is -1.0"),
        ({"lease_ttl_s": 1.4}, "at least three heartbeat intervals"),
        ({"backoff_cap_s": 0.1}, "backoff_cap_s 0.1 is below"),
        ({"quarantine_cap_s": 1.0}, "quarantine_cap_s 1.0 is below"),
        ({"tail_factor": 0.5}, "at least 1"),
        ({"hedge_factor": float("nan")}, "hedge_factor is nan"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(LocalFault, match=says):
        replace(SchedulerConfig(), **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"phi_suspect": 10.0}, "phi_suspect"),
        ({"window_beats": 5}, "window"),
        ({"deviation_min_beats": 0.0}, "deviation_min_beats"),
        ({"learning_silence_beats": 21.0}, "learning_silence_beats"),
        ({"excess_factor": -1.0}, "excess_factor"),
        ({"revive_beats": 0}, "revive_beats"),
    ],
)
def test_a_detector_that_contradicts_itself_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(LocalFault, match=says):
        replace(DetectorConfig(), **changes)
