"""The queue: order, membership, age, and what a waiting job costs."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.scheduler.queue import CHUNK_JOBS, FreshJobs, ReturnedJobs
from wire.errors import LocalFault


def _fresh(*jobs: int, now: float = 0.0) -> FreshJobs:
    fresh = FreshJobs()
    for job in jobs:
        fresh.reach(job)
        fresh.add(job, now)
    return fresh


def test_fresh_jobs_are_taken_lowest_first_over_chunks() -> None:
    jobs = [1, 2, CHUNK_JOBS - 1, CHUNK_JOBS, 5 * CHUNK_JOBS + 3]
    fresh = _fresh(*jobs)
    taken = []
    while (job := fresh.head()) is not None:
        assert fresh.remove(job)
        taken.append(job)
    assert taken == jobs
    assert len(fresh) == 0


def test_numbers_must_rise() -> None:
    fresh = _fresh(7)
    with pytest.raises(LocalFault, match="job 7 comes after job 7"):
        fresh.reach(7)


def test_a_job_added_to_the_chunk_that_was_emptied_is_found() -> None:
    fresh = _fresh(10)
    assert fresh.remove(10)
    assert fresh.head() is None
    fresh.reach(11)
    fresh.add(11, 1.0)
    assert fresh.head() == 11


def test_age_is_known_to_the_second_and_never_too_young() -> None:
    fresh = FreshJobs()
    for job, now in ((1, 10.0), (2, 10.9), (3, 11.0), (4, 50.0)):
        fresh.reach(job)
        fresh.add(job, now)
    ages = []
    for job in (1, 2, 3, 4):
        ages.append(fresh.accepted_at(job))
        fresh.remove(job)
    assert ages == [10.0, 10.0, 11.0, 50.0]


@given(st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=60))
def test_it_is_a_sorted_set(steps: list[tuple[int, bool]]) -> None:
    fresh, model, highest = FreshJobs(), set[int](), 0
    for number, add in steps:
        if add:
            highest += number
            fresh.reach(highest)
            fresh.add(highest, 0.0)
            model.add(highest)
        elif model:
            job = sorted(model)[number % len(model)]
            assert fresh.remove(job)
            model.discard(job)
            assert job not in fresh
        assert fresh.head() == min(model, default=None)
    assert list(fresh) == sorted(model)
    assert len(fresh) == len(model)


def test_a_million_waiting_jobs_cost_two_bytes_each_at_most() -> None:
    tracemalloc.start()
    fresh = FreshJobs()
    for job in range(1, 1_000_001):
        fresh.reach(job)
        fresh.add(job, job / 1000)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(fresh) == 1_000_000
    assert size < 2_000_000


def test_returned_jobs_are_taken_lowest_first_and_forget_what_was_removed() -> None:
    returned = ReturnedJobs()
    for job in (5, 3, 9):
        returned.add(job)
    assert returned.remove(3)
    assert not returned.remove(3)
    assert returned.head() == 5
    returned.add(3)
    assert list(returned) == [3, 5, 9]
    assert returned.head() == 3


def test_removed_jobs_do_not_pile_up() -> None:
    returned = ReturnedJobs()
    returned.add(0)
    for job in range(1, 10_000):
        returned.add(job)
        returned.remove(job)
    assert len(returned._heap) < 100
