"""Intervals and ratios: right on data whose answer is known, silent where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.errors import Unlike
from experiments.statistics import Interval, interval, percentile, ratio


def test_an_interval_of_a_symmetric_sample_is_near_students() -> None:
    values = list(np.random.default_rng(3).normal(100, 10, 40))
    found = interval(values, seed=1)
    half = 2.02 * np.std(values, ddof=1) / math.sqrt(40)
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx(
        (found.mean - half, found.mean + half), rel=0.02
    )


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for number in range(60):
        found = interval(list(rng.normal(5, 1, 20)), seed=number)
        covered += found.low <= 5 <= found.high
    # 95 % of 60 is 57; BCa is a little short with 20 samples. 50 is 3.7 deviations below 57.
    assert covered >= 50


def test_too_few_or_equal_values_make_no_false_interval() -> None:
    one = interval([4.0], seed=1)
    assert one.mean == 4.0 and math.isnan(one.low) and one.n == 1
    assert interval([4.0, 4.0, math.nan], seed=1) == Interval(4.0, 4.0, 4.0, 2)
    assert math.isnan(interval([], seed=1).mean)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    assert interval(values, seed=1) == interval(values, seed=1)


def test_a_paired_ratio_sees_what_unpaired_means_would_hide() -> None:
    weather = [10.0, 20.0, 40.0, 80.0, 160.0]
    better = [w * f for w, f in zip(weather, [1.09, 1.1, 1.11, 1.1, 1.1], strict=True)]
    found = ratio(weather, better, seed=1)
    assert found.low > 1.05 and found.high < 1.15 and found.verdict == "B is higher"
    assert ratio(better, weather, seed=1).verdict == "B is lower"


def test_no_difference_is_said_where_none_is_shown() -> None:
    rng = np.random.default_rng(9)
    a, b = list(rng.normal(10, 2, 8)), list(rng.normal(10, 2, 8))
    assert ratio(a, b, seed=1).verdict == "no difference shown"


def test_a_ratio_that_is_the_same_in_every_pair_has_no_width() -> None:
    found = ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], seed=1)
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 2, 2))


def test_ratios_refuse_what_has_no_pairs_or_no_divisor() -> None:
    with pytest.raises(Unlike, match="2 and 1 replicates"):
        ratio([1.0, 2.0], [1.0], seed=1)
    assert ratio([0.0, 0.0], [1.0, 2.0], seed=1).verdict.startswith("no verdict")
    assert ratio([1.0], [2.0], seed=1).verdict.startswith("no verdict")


def test_percentile_of_nothing_is_not_a_number() -> None:
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert math.isnan(percentile([], 50))
