"""Bytes and ages of open jobs."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from master.core.ledger import CHUNK_JOBS, Ledger


def test_a_job_is_in_until_taken() -> None:
    ledger = Ledger()
    ledger.add(5, 1000, now=2.0)
    assert 5 in ledger
    assert (ledger.jobs, ledger.total_bytes) == (1, 1000)
    assert ledger.take(5, now=2.25) == 250.0
    assert 5 not in ledger
    assert (ledger.jobs, ledger.total_bytes) == (0, 0)


def test_taking_what_is_not_there_changes_nothing() -> None:
    ledger = Ledger()
    ledger.add(5, 1000, now=2.0)
    assert ledger.take(6, now=3.0) is None
    assert ledger.take(CHUNK_JOBS * 9, now=3.0) is None
    assert (ledger.jobs, ledger.total_bytes) == (1, 1000)


def test_age_survives_the_wrap_of_its_32_bits() -> None:
    ledger = Ledger()
    almost_s = 2**32 / 1000 - 0.5
    ledger.add(1, 1, now=almost_s)
    assert ledger.take(1, now=almost_s + 1.0) == 1000.0


def test_empty_upload_keeps_its_place() -> None:
    ledger = Ledger()
    ledger.add(1, 0, now=0.0)
    assert 1 in ledger


def test_a_hundred_thousand_jobs_cost_about_eight_bytes_each() -> None:
    ledger = Ledger()
    for job in range(100_000):
        ledger.add(job, 7, now=0.0)
    size = sum(
        sys.getsizeof(chunk.sizes) + sys.getsizeof(chunk.accepted_ms)
        for chunk in ledger._chunks.values()
    )
    assert size < 100_000 * 9
    for job in range(100_000):
        ledger.take(job, now=0.0)
    assert not ledger._chunks


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20_000), st.integers(1, 2**31))))
def test_totals_are_those_of_a_dict(steps: list[tuple[bool, int, int]]) -> None:
    ledger, model = Ledger(), dict[int, int]()
    for add, job, size in steps:
        if add and job not in model:
            ledger.add(job, size, now=1.0)
            model[job] = size
        elif not add:
            assert (ledger.take(job, now=1.0) is None) == (model.pop(job, None) is None)
    assert ledger.jobs == len(model)
    assert ledger.total_bytes == sum(model.values())
