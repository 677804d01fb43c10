"""From the TOML of a scenario to the scenarios of its points.

Pure. Promises that an error says which value, where, the limit and the next step.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from experiments.errors import BadScenario
from experiments.scenario import Scenario

# What `--quick` takes of a scenario: to see that it works, not to cite.
QUICK_REPLICATES = 2
QUICK_IMAGES = 12
QUICK_S = 20.0
QUICK_POINTS = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One value of the sweep, and the scenario with that value in its place."""

    label: str
    value: float
    scenario: Scenario


def parse(text: str, name: str) -> dict[str, Any]:
    """The table of a scenario's TOML, checked as a whole.

    Raises:
        BadScenario: it is no TOML, or no scenario.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario(f"{name}: no TOML: {error}") from None
    table.setdefault("name", name)
    points(table)
    return table


def scenario_of(table: Mapping[str, Any]) -> Scenario:
    """The scenario of a table, its sweep not applied.

    Raises:
        BadScenario: with the place, the value and what it should be.
    """
    try:
        return msgspec.convert(dict(table), Scenario)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").lstrip(".")
        found = _at(table, field)
        shown = f" = {found!r}" if found is not None else ""
        where = f"{field}{shown}: " if field else ""
        raise BadScenario(f"{table.get('name', 'scenario')}: {where}{reason}") from None


def points(table: Mapping[str, Any]) -> list[Point]:
    """Every point of the sweep, in its order; one point where there is no sweep.

    Raises:
        BadScenario: as `scenario_of`, or a field that no scenario has.
    """
    base = scenario_of(table)
    if base.sweep is None:
        return [Point("-", 0.0, base)]
    path = base.sweep.field.split(".")
    if len({str(value) for value in base.sweep.values}) < len(base.sweep.values):
        raise BadScenario(f"{base.name}: sweep.values has a value twice: {base.sweep.values}")
    return [
        Point(str(value), _axis(value, index), scenario_of(_with(table, path, value)))
        for index, value in enumerate(base.sweep.values)
    ]


def quick(table: Mapping[str, Any]) -> dict[str, Any]:
    """The same, smaller in everything that costs time; the folder says so."""
    small = copy.deepcopy(dict(table))
    stop = small.setdefault("stop", {})
    stop["replicates"] = min(QUICK_REPLICATES, stop.get("replicates", QUICK_REPLICATES))
    stop["minimum_images"] = min(QUICK_IMAGES, stop.get("minimum_images", QUICK_IMAGES))
    stop["minimum_s"] = min(QUICK_S / 4, stop.get("minimum_s", 0.0))
    stop["warmup_s"] = 0.0
    stop["longest_s"] = min(QUICK_S, stop.get("longest_s", QUICK_S))
    if "sweep" in small:
        values = small["sweep"]["values"]
        middle = len(values) // 2
        kept = [values[0], values[middle], values[-1]] if len(values) > QUICK_POINTS else values
        small["sweep"]["values"] = kept
    return small


def _with(table: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(table))
    inner = changed
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
    inner[path[-1]] = value
    return changed


def _axis(value: Any, index: int) -> float:
    """Where the value stands on the axis: at itself if it is a number, else at its rank."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else float(index)


def _at(table: Mapping[str, Any], field: str) -> Any:
    found: Any = table
    for part in field.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found
