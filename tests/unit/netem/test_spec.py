"""LinkSpec: its text, its TOML, its limits."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netem.errors import BadSpec
from netem.grammar import from_table, parse
from netem.spec import CUT, PERFECT, Distribution, GilbertElliott, LinkSpec
from tests.unit.netem.specs import link_specs

FULL = (
    "bursts=1%,10%,70%,0.1% delay=50ms jitter=5ms distribution=pareto correlation=25% "
    "reorder=1% reorder_correlation=50% gap=5 duplicate=0.5% corrupt=0.01% rate=100mbit "
    "limit=200 mtu=1400 seed=7"
)


@given(link_specs())
def test_every_spec_is_read_back_from_its_text(spec: LinkSpec) -> None:
    assert parse(str(spec)) == spec


@given(link_specs())
def test_every_spec_is_read_back_from_toml(spec: LinkSpec) -> None:
    words = [] if spec.is_perfect else [w.split("=") for w in str(spec).split()]
    lines = "\n".join(f'{key} = "{value}"' for key, value in words)
    assert from_table(tomllib.loads(lines)) == spec


@given(link_specs(), link_specs())
def test_what_is_given_replaces_what_was_and_zero_resets(was: LinkSpec, asked: LinkSpec) -> None:
    keys = ("rate", "limit", "mtu", "seed", "duplicate", "corrupt")
    words = {word.split("=")[0]: word for word in str(asked).split() if word != "0"}
    text = " ".join(words.get(key, f"{key}=0") for key in keys)
    changed = parse(text, base=was)
    assert (changed.rate_bps, changed.seed) == (asked.rate_bps, asked.seed)
    assert (changed.loss, changed.bursts, changed.delay_ms) == (was.loss, was.bursts, was.delay_ms)


def test_a_full_text_sets_every_field() -> None:
    spec = parse(FULL)
    assert str(spec) == FULL
    assert spec == LinkSpec(
        bursts=GilbertElliott(p=0.01, r=0.1, bad_loss=0.7, good_loss=0.001),
        delay_ms=50.0,
        jitter_ms=5.0,
        distribution=Distribution.PARETO,
        correlation=0.25,
        reorder=0.01,
        reorder_correlation=0.5,
        gap=5,
        duplicate=0.005,
        corrupt=0.0001,
        rate_bps=100_000_000,
        limit_packets=200,
        mtu_bytes=1400,
        seed=7,
    )


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("", PERFECT),
        ("0", PERFECT),
        ("loss=0 delay=0", PERFECT),
        ("loss=100%", CUT),
        ("loss=0.5%", LinkSpec(loss=0.005)),
        ("delay=1.5s", LinkSpec(delay_ms=1500.0)),
        ("delay=250us", LinkSpec(delay_ms=0.25)),
        ("rate=1.5mbit", LinkSpec(rate_bps=1_500_000)),
        ("rate=2gbit", LinkSpec(rate_bps=2_000_000_000)),
        ("delay=10ms jitter=10ms distribution=0", LinkSpec(delay_ms=10, jitter_ms=10)),
        ("bursts=2%,30%", LinkSpec(bursts=GilbertElliott(p=0.02, r=0.3))),
    ],
)
def test_what_people_write(text: str, spec: LinkSpec) -> None:
    assert parse(text) == spec


def test_the_text_is_short() -> None:
    assert str(parse("delay=0.25ms rate=1500kbit loss=7%")) == "loss=7% delay=0.25ms rate=1500kbit"
    assert str(PERFECT) == "0"


def test_zero_resets_one_field_and_a_lone_zero_all() -> None:
    was = parse("loss=10% delay=50ms")
    assert parse("loss=0", base=was) == parse("delay=50ms")
    assert parse("rate=1mbit", base=was) == parse("loss=10% delay=50ms rate=1mbit")
    assert parse("0", base=was) == PERFECT


def test_one_kind_of_loss_takes_the_place_of_the_other() -> None:
    assert parse("bursts=1%,10%", base=parse("loss=10%")) == parse("bursts=1%,10%")
    assert parse("loss=10%", base=parse("bursts=1%,10%")) == parse("loss=10%")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("loss=10", ["loss=10", "no unit", "10%"]),
        ("loss=101%", ["loss=101%", "100%"]),
        ("loss=-1%", ["loss=-1%", "0%"]),
        ("loss=1e-3%", ["loss=1e-3%", "10%"]),
        ("loss=nan%", ["loss=nan%", "no number"]),
        ("loss=٣%", ["no number"]),
        ("loss=0.00000001%", ["loss=0.00000001%", "0.000000023283064365386963% or more"]),
        ("loss=10% bursts=1%,10%", ["exclude", "keep one"]),
        ("loss=1% loss=2%", ["loss", "twice", "keep one"]),
        ("bursts=1%", ["bursts=1%", "P,R"]),
        ("bursts=0%,10%", ["one state", "loss="]),
        ("bursts=1%,10%,100%,0%,5%", ["P,R"]),
        ("delay=50", ["delay=50", "no unit", "50ms"]),
        ("delay=50min", ["'min'", "ms, us, s"]),
        ("delay=-1ms", ["delay=-1ms", "0.001ms", "240000ms"]),
        ("delay=241s", ["delay=241000ms", "240000ms"]),
        ("delay=3s jitter=2.1s", ["jitter=2100ms", "2000ms"]),
        ("jitter=5ms", ["jitter=5ms", "delay=0ms", "set delay=5ms"]),
        ("delay=5ms jitter=6ms", ["jitter=6ms", "delay=5ms", "set delay=6ms"]),
        ("delay=5ms correlation=10%", ["correlation=10%", "set jitter"]),
        ("delay=5ms distribution=normal", ["distribution=normal", "set jitter"]),
        ("delay=5ms jitter=1ms distribution=gauss", ["gauss", "normal", "pareto"]),
        ("reorder=5%", ["reorder=5%", "set delay"]),
        ("delay=5ms gap=3", ["gap=3", "set reorder"]),
        ("delay=5ms reorder_correlation=3%", ["reorder_correlation=3%", "set reorder"]),
        ("rate=100", ["rate=100", "no unit", "100mbit"]),
        ("rate=100mbps", ["'mbps'", "mbit"]),
        ("rate=999bit", ["rate=999bit", "1kbit", "1000gbit"]),
        ("rate=1001bit", ["rate=1001bit", "1kbit"]),
        ("rate=1.0001kbit", ["fraction"]),
        ("limit=1.5", ["limit=1.5", "fraction"]),
        ("limit=-1", ["limit=-1", "1000000"]),
        ("limit=5%", ["'%'", "plain count"]),
        ("mtu=67", ["mtu=67", "68", "65535"]),
        (f"seed={2**64}", ["seed=", str(2**64 - 1)]),
        (f"limit={'9' * 50}", ["no number"]),
        ("speed=3", ["'speed'", "loss", "rate"]),
        ("loss", ["'loss'", "KEY=VALUE"]),
    ],
)
def test_what_no_link_can_have_is_refused_with_the_fix(text: str, says: list[str]) -> None:
    with pytest.raises(BadSpec) as caught:
        parse(text)
    assert [part for part in says if part not in str(caught.value)] == [], str(caught.value)


@given(st.text(alphabet="lossdelay=%0123456789.-, ms\t٣", max_size=40))
def test_any_text_gives_a_spec_or_a_bad_spec(text: str) -> None:
    try:
        spec = parse(text)
    except BadSpec:
        return
    assert parse(str(spec)) == spec


def test_toml_takes_numbers_under_names_with_a_unit() -> None:
    table = tomllib.loads('loss = 0.1\ndelay_ms = 50\nrate = "100mbit"\nbursts = "0"\n')
    assert from_table(table) == LinkSpec(loss=0.1, delay_ms=50.0, rate_bps=100_000_000)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"delay": 50}, ["delay = 50", "no unit", '"50ms"']),
        ({"rate": 5}, ["rate = 5", '"100mbit"']),
        ({"speed": 5}, ["'speed'"]),
        ({"speed": "5"}, ["'speed'"]),
        ({"bursts": 5}, ["bursts = 5", '"1%,10%"']),
        ({"loss": 5}, ["loss=500%", "100%"]),
        ({"loss": True}, ["loss", "number"]),
        ({"limit_packets": 1.5}, ["whole number"]),
        ({"delay": "5ms", "delay_ms": 5}, ["twice"]),
    ],
)
def test_a_wrong_table_is_refused_with_the_fix(table: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(BadSpec) as caught:
        from_table(table)
    assert [part for part in says if part not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "10%", None, True])
def test_python_values_are_checked_too(value: Any) -> None:
    for name in ("loss", "delay_ms"):
        with pytest.raises(BadSpec, match="number"):
            LinkSpec(**{name: value})


def test_the_mean_of_bursts_is_the_stationary_loss() -> None:
    bursts = GilbertElliott(p=0.01, r=0.09, bad_loss=0.5, good_loss=0.0)
    assert LinkSpec(bursts=bursts).mean_loss == pytest.approx(0.05)
    assert LinkSpec(loss=0.2).mean_loss == 0.2
