"""The log's bound, with literal times."""

from __future__ import annotations

from wire.loglimit import LogLimit


def test_a_burst_passes_and_the_rest_is_counted() -> None:
    limit = LogLimit(rate_per_s=2.0, burst=3)
    assert [limit.allow(10.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert limit.allow(10.4) is None
    assert limit.allow(10.5) == 3
    assert limit.allow(10.5) is None


def test_credit_does_not_pile_up_beyond_the_burst() -> None:
    limit = LogLimit(rate_per_s=2.0, burst=2)
    assert limit.allow(0.0) == 0
    assert [limit.allow(1000.0) for _ in range(3)] == [0, 0, None]
