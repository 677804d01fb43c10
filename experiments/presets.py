"""The scenarios that ship with Lookout, by name, and how long each takes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from experiments.errors import BadScenario
from experiments.scenario_file import parse, points

# Starting and stopping master and workers, per replicate, on two cores.
SETUP_S = 12.0
# Whole runs on two cores (docs/experiments.md).
MEASURED_S = {
    "aws-parallel": 151.0,
    "failures-per-job": 140.0,
    "googlenet-delay": 559.0,
    "googlenet-delay-packets": 257.0,
    "googlenet-failures": 136.0,
    "googlenet-loss": 787.0,
    "googlenet-loss-packets": 751.0,
    "googlenet-workers": 117.0,
    "mobilenet-loss": 1554.0,
}


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of `experiments list`. It takes no longer than `longest_s`.

    `measured_s` is how long it took on two cores; None if it was not run.
    """

    name: str
    title: str
    points: int
    replicates: int
    measured_s: float | None
    longest_s: float
    needs_lab: bool


def names() -> list[str]:
    """Every preset."""
    folder = resources.files("experiments") / "presets"
    found = (f.name for f in folder.iterdir() if f.name.endswith(".toml"))
    return sorted(name.removesuffix(".toml") for name in found)


def load(given: str) -> dict[str, Any]:
    """The table of a preset, or of a file if `given` ends with `.toml`.

    Raises:
        BadScenario: there is neither, or it is no scenario.
    """
    if given.endswith(".toml"):
        path = Path(given)
        if not path.is_file():
            raise BadScenario(f"there is no file {given}")
        return parse(path.read_text(encoding="utf-8"), path.stem)
    if given not in names():
        raise BadScenario(
            f"there is no preset {given!r}; there are {', '.join(names())} (or give a .toml file)"
        )
    text = (resources.files("experiments") / "presets" / f"{given}.toml").read_text("utf-8")
    return parse(text, given)


def listed(name: str) -> Listed:
    """What `experiments list` says of a preset."""
    table = load(name)
    swept = points(table)
    stop = swept[0].scenario.stop
    rounds = stop.replicates * len(swept)
    longest_s = sum(p.scenario.stop.longest_s for p in swept) * stop.replicates + rounds * SETUP_S
    lab = any(p.scenario.level.value == "packet" for p in swept)
    title, took_s = swept[0].scenario.title, MEASURED_S.get(name)
    return Listed(name, title, len(swept), stop.replicates, took_s, longest_s, lab)
