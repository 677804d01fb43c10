"""The draws against their formulas, over many packets."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from netem.emulator.dice import Dice, correlated
from netem.emulator.jitter import TABLE_UNIT, delays_s, table
from netem.grammar import parse
from netem.spec import Distribution, GilbertElliott, LinkSpec

DRAWS = 50_000
TABLES = [d for d in Distribution if d is not Distribution.UNIFORM]


def losses(spec: LinkSpec) -> list[bool]:
    """What happens to many packets in a row."""
    loses = Dice(spec, "seed").loses
    assert loses is not None
    return [loses() for _ in range(DRAWS)]


def runs(lost: list[bool]) -> list[int]:
    """Lengths of the bursts of losses."""
    lengths, length = [], 0
    for one in [*lost, False]:
        if one:
            length += 1
        elif length:
            lengths.append(length)
            length = 0
    return lengths


@pytest.mark.parametrize("percent", [1, 10, 30])
def test_independent_loss(percent: int) -> None:
    lost = losses(parse(f"loss={percent}%"))
    p = percent / 100
    assert abs(statistics.fmean(lost) - p) < 5 * math.sqrt(p * (1 - p) / DRAWS)
    # Independent: a burst is as long as chance makes it.
    assert abs(statistics.fmean(runs(lost)) - 1 / (1 - p)) < 0.05


def test_bursts_have_the_loss_and_the_length_of_the_chain() -> None:
    chain = GilbertElliott(p=0.01, r=0.1)
    lost = losses(LinkSpec(bursts=chain))
    assert abs(statistics.fmean(lost) - chain.mean_loss) < 0.015
    assert abs(statistics.fmean(runs(lost)) - 1 / chain.r) < 1.0


def test_both_states_of_a_chain_may_lose() -> None:
    chain = GilbertElliott(p=0.2, r=0.3, bad_loss=0.5, good_loss=0.1)
    assert abs(statistics.fmean(losses(LinkSpec(bursts=chain))) - chain.mean_loss) < 0.01


def test_correlated_draws_follow_each_other_as_much_as_asked() -> None:
    draw = correlated(Random(1), 0.5)
    values = [draw() for _ in range(DRAWS)]
    assert abs(statistics.correlation(values[:-1], values[1:]) - 0.5) < 0.02
    plain = correlated(Random(1), 0.0)
    values = [plain() for _ in range(DRAWS)]
    assert abs(statistics.correlation(values[:-1], values[1:])) < 0.02


def test_uniform_jitter_stays_within_its_width() -> None:
    spec = parse("delay=10ms jitter=4ms")
    delays = [delays_s(spec, Random(1).random)() for _ in range(3)]
    assert delays[0] == delays[1] == delays[2]
    next_s = delays_s(spec, Random(1).random)
    many = [next_s() for _ in range(DRAWS)]
    assert 0.006 <= min(many) < 0.0061
    assert 0.0139 < max(many) < 0.014
    assert abs(statistics.fmean(many) - 0.010) < 5e-5


@pytest.mark.parametrize("distribution", TABLES)
def test_shaped_jitter_has_the_mean_and_the_deviation_of_its_table(
    distribution: Distribution,
) -> None:
    spec = LinkSpec(delay_ms=100, jitter_ms=10, distribution=distribution)
    next_s = delays_s(spec, Random(1).random)
    many = [next_s() for _ in range(DRAWS)]
    deviations = [entry / TABLE_UNIT for entry in table(distribution)]
    assert abs(statistics.fmean(many) - (0.1 + 0.01 * statistics.fmean(deviations))) < 2e-4
    assert abs(statistics.pstdev(many) / 0.01 - statistics.pstdev(deviations)) < 0.03
    assert all(a <= b for a, b in pairwise(table(distribution)))


@pytest.mark.parametrize("distribution", TABLES)
def test_the_tables_are_those_of_tc(distribution: Distribution) -> None:
    files = [*Path("/usr/lib").glob(f"**/tc/{distribution}.dist")]
    if not files:
        pytest.skip("this machine has no tables of tc (apt-get install iproute2)")
    lines = [line for line in files[0].read_text().splitlines() if not line.startswith("#")]
    theirs = [int(word) for line in lines for word in line.split()]
    ours = table(distribution)
    assert len(ours) == len(theirs)
    # tc searches its table in steps, so its tails are up to 1.1 % further out.
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        assert abs(mine - other) <= max(2, 0.02 * abs(other))
