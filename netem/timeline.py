"""Timelines: which link changes when, and what doing so really took.

    [[step]]
    at_s = 5
    set = "worker-2"
    link = { loss = "20%" }

    [[step]]
    at_s = 10
    cut = ["worker-1", "worker-2"]

    [[step]]
    at_s = 12
    heal = ["worker-1", "worker-2"]

Pure: `netem.lab.conductor` carries one out.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from netem.errors import BadSpec
from netem.lab.topology import duplex_of
from netem.spec import Duplex

STEPS_MAX: Final = 100_000
AT_MAX_S: Final = 30 * 24 * 3600.0


class Verb(enum.StrEnum):
    """What a step does to a host's link."""

    SET = "set"
    CUT = "cut"
    HEAL = "heal"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one link, `at_s` seconds after the start; `link` is for `set` alone.

    Raises:
        BadSpec: a time before the start, or a link where none belongs.
    """

    at_s: float
    verb: Verb
    host: str
    link: Duplex | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.at_s <= AT_MAX_S:
            raise BadSpec(f"at_s={self.at_s} is out of range: from 0 to {AT_MAX_S:.0f}")
        if (self.link is None) == (self.verb is Verb.SET):
            raise BadSpec(f"at {self.at_s:g} s: a link belongs to set, and to set alone")

    def __str__(self) -> str:
        words = f"{self.verb} {self.host}"
        if self.link is None:
            return words
        if self.link.egress == self.link.ingress:
            return f"{words} {self.link.egress}"
        return f"{words} egress: {self.link.egress} ingress: {self.link.ingress}"


@dataclass(frozen=True, slots=True)
class Timeline:
    """Steps in the order of their times; those of one time as they were written.

    Raises:
        BadSpec: more steps than any experiment has.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if len(self.steps) > STEPS_MAX:
            raise BadSpec(f"{len(self.steps)} steps are too many: up to {STEPS_MAX}")
        ordered = tuple(sorted(self.steps, key=lambda step: step.at_s))
        object.__setattr__(self, "steps", ordered)

    @property
    def length_s(self) -> float:
        """From the start to the last step."""
        return self.steps[-1].at_s if self.steps else 0.0

    def check_hosts(self, hosts: Collection[str]) -> None:
        """Raise BadSpec for a host that is not among these; better now than in the middle."""
        for step in self.steps:
            if step.host not in hosts:
                known = ", ".join(sorted(hosts))
                raise BadSpec(
                    f"at {step.at_s:g} s: there is no host {step.host!r}; there are {known}"
                )


@dataclass(frozen=True, slots=True)
class Executed:
    """One step that was done: when it was to be, and when it held; monotonic seconds."""

    step: Step
    planned_s: float
    done_s: float

    @property
    def late_s(self) -> float:
        """How much later than planned it held."""
        return self.done_s - self.planned_s


def timeline_of(table: Mapping[str, Any]) -> Timeline:
    """The timeline of a TOML table.

    `link` is written as in a lab's topology, and replaces the whole link.

    Raises:
        BadSpec: an unknown key, a value out of its limits, or a step that does nothing.
    """
    if unknown := sorted(set(table) - {"step"}):
        raise BadSpec(f"unknown key {unknown[0]!r} of a timeline; it has [[step]]")
    entries = table.get("step", [])
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        raise BadSpec("step is no list of tables: write each as [[step]]")
    return Timeline(tuple(step for entry in entries for step in _steps(entry)))


def _steps(entry: Mapping[str, Any]) -> Iterator[Step]:
    verbs = [verb for verb in Verb if verb in entry]
    if len(verbs) != 1:
        raise BadSpec(f"step {dict(entry)}: it needs one of {', '.join(Verb)}")
    (verb,) = verbs
    if unknown := sorted(set(entry) - {"at_s", "link", verb}):
        raise BadSpec(f"unknown key {unknown[0]!r} of a step; it has at_s, {verb}, link")
    at_s = entry.get("at_s")
    if not isinstance(at_s, int | float) or isinstance(at_s, bool):
        raise BadSpec(f"step {dict(entry)}: at_s must be seconds from the start, such as 5")
    link = duplex_of(entry["link"]) if "link" in entry else None
    for host in _hosts(entry[verb]):
        yield Step(float(at_s), verb, host, link)


def _hosts(value: object) -> list[str]:
    hosts = value if isinstance(value, list) else [value]
    if not hosts or not all(isinstance(host, str) for host in hosts):
        raise BadSpec(f'{value!r} is no host: write it like "worker-2", or a list of such')
    return [str(host) for host in hosts]
