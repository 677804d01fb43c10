"""Scenario files: what they may say, and how a mistake is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from experiments.errors import BadScenario
from experiments.scenario import Engine, Level, Scenario
from experiments.scenario_file import parse, points, quick, scenario_of

BASE = 'title = "x"\n'


def test_defaults_make_a_scenario() -> None:
    (point,) = points(parse(BASE, "plain"))
    assert point.label == "-"
    assert point.scenario == Scenario(name="plain", title="x")


def test_a_sweep_puts_each_value_in_its_place() -> None:
    text = BASE + 'level = "message"\n[sweep]\nfield = "message.loss"\nvalues = [0, 0.4, 0.8]\n'
    swept = points(parse(text, "loss"))
    assert [(p.label, p.value, p.scenario.message.loss) for p in swept] == [
        ("0", 0.0, 0.0),
        ("0.4", 0.4, 0.4),
        ("0.8", 0.8, 0.8),
    ]
    assert {p.scenario.level for p in swept} == {Level.MESSAGE}


def test_a_sweep_over_words_stands_in_their_order() -> None:
    text = BASE + '[sweep]\nfield = "cluster.engine"\nvalues = ["null", "torch"]\n'
    swept = points(parse(text, "engines"))
    assert [(p.value, p.scenario.cluster.engine) for p in swept] == [
        (0.0, Engine.NULL),
        (1.0, Engine.TORCH),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = 1", "title = 1: Expected `str`"),
        ("nothing", "no TOML"),
        (BASE + "[cluster]\nworkers = 0", "cluster.workers = 0: Expected `int` >= 1"),
        (BASE + "[cluster]\nworkers = 65", "cluster.workers = 65: Expected `int` <= 64"),
        (BASE + "[message]\nloss = 1.5", "message.loss = 1.5: Expected `float` <= 0.99"),
        (BASE + '[load]\nkind = "open"', "load.kind = 'open': Invalid enum value"),
        (BASE + "[load]\nspeed = 1", "unknown field `speed`"),
        (BASE + "[message]\nloss = 0.5", '\\[message\\] needs level = "message"'),
        (BASE + '[links.worker]\nloss = "1%"', '\\[links\\] needs level = "packet"'),
        (BASE + "[cluster]\nservice_ms = 5", 'service_ms needs engine = "null"'),
        (BASE + "[cluster]\nlease_ttl_s = 1", "at least three heartbeats \\(1.5 s\\)"),
        (BASE + "[faults]\nshortest_s = 9", "from 9 to 3 s"),
        (
            BASE + '[[faults.timeline]]\nat_s = 1\nkind = "crash"\nworker = 9',
            "worker 9: give 1 to 3",
        ),
        (BASE + '[sweep]\nfield = "cluster.workers"\nvalues = []', "length >= 1"),
        (BASE + '[sweep]\nfield = "cluster.workers"\nvalues = [1, 1]', "a value twice"),
        (BASE + '[sweep]\nfield = "cluster.wheels"\nvalues = [1]', "unknown field `wheels`"),
        (BASE + '[sweep]\nfield = "cluster.workers"\nvalues = [1, 99]', "cluster.workers = 99"),
    ],
)
def test_a_mistake_is_told_with_value_and_limit(text: str, said: str) -> None:
    with pytest.raises(BadScenario, match=said):
        parse(text, "mine")


def test_quick_is_smaller_and_keeps_both_ends() -> None:
    table: Mapping[str, Any] = {
        "name": "q",
        "title": "q",
        "stop": {"replicates": 9, "minimum_images": 1000, "longest_s": 600.0},
        "sweep": {"field": "cluster.workers", "values": [1, 2, 3, 4, 5]},
    }
    small = quick(table)
    assert small["sweep"]["values"] == [1, 3, 5]
    stop = scenario_of(small).stop
    assert (stop.replicates, stop.minimum_images, stop.longest_s) == (2, 12, 20.0)
    assert table["stop"]["replicates"] == 9, "the one given stays as it is"
