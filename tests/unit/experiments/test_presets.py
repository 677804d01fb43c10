"""What ships with experiments: every preset and every published table can be used."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments import chaos, presets, published
from experiments.errors import BadScenario
from experiments.network import _wanted
from experiments.scenario import Level, Published
from experiments.scenario_file import points, quick


def published_of(name: str) -> Published | None:
    """Where the figures beside a preset's own come from."""
    return points(presets.load(name))[0].scenario.published


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_a_scenario_whose_links_exist(name: str) -> None:
    table = presets.load(name)
    for point in [*points(table), *points(quick(table))]:
        assert point.scenario.title and point.scenario.question
        if point.scenario.level is Level.PACKET:
            assert _wanted(point.scenario, seed=1)
    listed = presets.listed(name)
    assert listed.points == len(points(table)) and listed.longest_s > 60


@pytest.mark.parametrize("name", [name for name in presets.names() if published_of(name)])
def test_the_published_table_of_a_preset_has_its_points(name: str) -> None:
    swept = points(presets.load(name))
    wanted = published_of(name)
    assert wanted is not None
    table = published.load(wanted.table)
    assert wanted.column in table.columns
    known = [table.value(point.value, wanted.column) for point in swept]
    assert sum(math.isfinite(value) for value in known) >= 2


def test_every_table_says_its_source_and_is_used() -> None:
    used = {found.table for name in presets.names() if (found := published_of(name))}
    assert used == set(published.names())
    for name in published.names():
        assert published.load(name).notes[0].startswith("Source: ")


def test_published_numbers_are_those_of_their_authors() -> None:
    loss = published.load("bu-mobilenet-loss")
    assert loss.value(0.2, "goodput_per_s") == 10.45
    assert loss.value(0.6, "job_time_s") == 3.31
    assert published.load("bu-googlenet-workers").value(1, "throughput_bps") == 6_167_983
    assert math.isnan(published.load("aws-tiers").value(60, "total_s"))
    assert published.load("aws-tiers").cell(60, "errors") == "memory"


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(BadScenario, match="there are aws-parallel"):
        presets.load("nothing")
    with pytest.raises(BadScenario, match="no file"):
        presets.load(str(tmp_path / "x.toml"))
    with pytest.raises(BadScenario, match="no published table"):
        published.load("nothing")


def test_a_check_is_cut_into_rounds() -> None:
    (short,) = points(chaos.table(30, seed=2))
    assert (short.scenario.stop.replicates, short.scenario.stop.longest_s) == (1, 30)
    (hour,) = points(chaos.table(3600, seed=2))
    assert (hour.scenario.stop.replicates, hour.scenario.stop.longest_s) == (30, 120)
    with pytest.raises(BadScenario, match="5 s to 30 days"):
        chaos.table(1, seed=2)
