"""Names, rates, percentiles, the pace of commits, the window of images."""

from __future__ import annotations

import pytest

from master.core.journal import Ended
from master.core.names import job_id, job_number, rfc3339, stamp, submission_id, submission_number
from master.core.pace import GATHER_SHARE, PATIENCE_S_MAX, SHARE, Pace, waited_s
from master.core.rates import RATE_WINDOW_S, SAMPLES_MAX, Percentiles, RateMeter
from master.core.window import Window
from master.states import JobState
from master.store.base import JobEnd


def test_names_and_numbers() -> None:
    assert job_number(job_id(17)) == 17 and job_id(17) == "j17"
    assert submission_number(submission_id(3)) == 3 and submission_id(3) == "s3"


def test_times_are_rfc_3339_in_utc() -> None:
    assert stamp(0.0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
    assert rfc3339(None) is None


def test_rate_is_over_the_window_only() -> None:
    meter = RateMeter(0.0)
    for second in range(100, 100 + RATE_WINDOW_S):
        meter.add(float(second), 5)
    assert meter.per_second(100.0 + RATE_WINDOW_S - 0.5) == 5.0
    assert meter.per_second(1000.0) == 0.0


def test_rate_soon_after_the_start_is_not_diluted() -> None:
    meter = RateMeter(50.0)
    meter.add(51.0, 30)
    assert meter.per_second(52.0) == 15.0


def test_percentiles_by_nearest_rank_over_the_last_values() -> None:
    values = Percentiles()
    assert values.read(50) == {}
    for value in range(1, 101):
        values.add(float(value))
    assert values.read(50, 99) == {"p50": 51.0, "p99": 100.0}
    for _ in range(SAMPLES_MAX):
        values.add(7.0)
    assert values.read(50, 99) == {"p50": 7.0, "p99": 7.0}


def test_writes_wait_for_a_part_of_the_shortest_time_that_jobs_wait() -> None:
    pace = Pace()
    for _ in range(7):
        pace.ended(0.2)
        assert pace.patience_s == pace.gather_s == 0.0, "too little is known"
    pace.ended(0.2)
    assert pace.patience_s == pytest.approx(0.06)
    assert pace.gather_s == pytest.approx(0.012)
    pace.ended(0.02)
    assert pace.patience_s == pytest.approx(0.006), "one job that was soon begun is enough"
    for _ in range(8):
        pace.ended(3600.0)
    assert pace.patience_s == PATIENCE_S_MAX
    pace.idle()
    assert pace.patience_s == 0.0, "whoever comes after a burst isn't kept waiting"
    assert 2 * SHARE * (1 + GATHER_SHARE) < 1, "or workers would run dry for it"


def test_what_a_job_waited_ends_with_its_work() -> None:
    """Accepted at 100 s, begun at 101, ended at 105; it became durable, and was told, at 110."""

    def waited(started_at: float | None, queued_s: float = 0.0) -> float:
        end = JobEnd(1, JobState.SUCCEEDED, 1, finished_at=105.0, started_at=started_at)
        return waited_s(Ended(end, "w", queued_s), age_s=10.0, wall_s=110.0)

    assert waited(101.0) == 1.0
    assert waited(101.0, queued_s=0.5) == 1.0
    assert waited(101.0, queued_s=2.5) == 2.5, "begun, but for so long not decoded or inferred"
    assert waited(99.9) == 0.0, "the wall clock was set back"
    assert waited(None) == 0.0


def test_window_keeps_what_fits_and_gives_it_once() -> None:
    window = Window(bytes_max=10)
    window.offer(1, "a", b"12345")
    window.offer(2, "b", b"123456")
    window.offer(3, "c", b"12345")
    assert window.bytes == 10
    assert window.take(2) is None
    assert window.take(1) == ("a", b"12345")
    assert window.take(1) is None
    assert window.bytes == 5
