"""What answers mean, and how long to wait."""

from __future__ import annotations

import random

import pytest

from client.retry import Backoff, Verdict, judge
from client.transport import retry_after_s


@pytest.mark.parametrize("status", [408, 502, 503, 504, 507])
def test_a_server_that_is_away_or_busy_is_tried_again(status: int) -> None:
    assert judge(status, "") is Verdict.AGAIN


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (200, "", Verdict.TAKE),
        (202, "", Verdict.TAKE),
        (429, "queue_full", Verdict.QUEUE),
        (409, "key_in_use", Verdict.AGAIN),
        (409, "conflict", Verdict.IMAGE),
        (502, "url_unreachable", Verdict.FEW),
        (504, "url_timeout", Verdict.FEW),
        (500, "internal_error", Verdict.FEW),
        (413, "image_too_large", Verdict.IMAGE),
        (422, "idempotency_mismatch", Verdict.IMAGE),
        (403, "host_not_allowed", Verdict.SERVER),
        (404, "", Verdict.SERVER),
        (301, "", Verdict.SERVER),
        (501, "", Verdict.SERVER),
    ],
)
def test_every_other_answer_has_its_verdict(status: int, code: str, verdict: Verdict) -> None:
    assert judge(status, code) is verdict


def test_delays_are_drawn_from_zero_to_a_doubling_bound() -> None:
    for failures, bound_s in enumerate([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]):
        drawn = [
            Backoff(0.25, 10.0, failures).next_delay_s(random.Random(seed)) for seed in range(400)
        ]
        assert 0 <= min(drawn) < 0.02 * bound_s
        assert 0.98 * bound_s < max(drawn) <= bound_s


def test_a_server_that_names_a_time_never_sees_us_earlier() -> None:
    drawn = [Backoff(0.25, 10.0).next_delay_s(random.Random(seed), 7.0) for seed in range(100)]
    assert min(drawn) >= 7.0
    assert len(set(drawn)) == 100, "those who were told the same second must not come together"


def test_a_bound_of_its_own_holds_for_one_wait_and_counts_it_as_a_failure() -> None:
    drawn = [Backoff(0.25, 10.0, 9).next_delay_s(random.Random(n), 0.0, 1.0) for n in range(400)]
    assert 0 <= min(drawn) < 0.02 and 0.98 < max(drawn) <= 1.0
    backoff = Backoff(0.25, 10.0, 9)
    backoff.next_delay_s(random.Random(1), 0.0, 1.0)
    assert backoff.failures == 10


def test_failures_without_end_do_not_overflow() -> None:
    assert Backoff(0.25, 10.0, 10**9).next_delay_s(random.Random(1)) <= 10.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("٣", 0.0),
        ("999999999", 86_400.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_s(value, "Thu, 01 Jan 2026 12:00:00 GMT") == seconds


def test_a_date_without_the_servers_own_means_nothing() -> None:
    assert retry_after_s("Thu, 01 Jan 2026 12:00:30 GMT", "") == 0.0
