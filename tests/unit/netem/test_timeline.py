"""Timelines: from TOML to steps, and what happens when one is carried out."""

from __future__ import annotations

import threading
import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netem.errors import BadSpec, NetemError
from netem.grammar import parse
from netem.lab.conductor import Conductor, perform
from netem.spec import Duplex
from netem.timeline import Step, Timeline, Verb, timeline_of

TOML = """
[[step]]
at_s = 10
cut = ["worker-1", "worker-2"]

[[step]]
at_s = 5
set = "worker-2"
link = { loss = "20%", egress = { delay = "5ms" } }

[[step]]
at_s = 12.5
heal = ["worker-1", "worker-2"]
"""


class Controls:
    """Notes what was asked of it, and when."""

    def __init__(self, broken: str = "") -> None:
        self.asked: list[tuple[str, str]] = []
        self.times_s: list[float] = []
        self._broken = broken

    def _note(self, verb: str, host: str) -> float:
        if host == self._broken:
            raise NetemError("gone", f"{host} is gone")
        self.asked.append((verb, host))
        self.times_s.append(time.monotonic())
        return self.times_s[-1]

    def set(self, host: str, link: Duplex) -> float:
        """Note it."""
        return self._note(f"set {link.egress}", host)

    def cut(self, host: str) -> float:
        """Note it."""
        return self._note("cut", host)

    def heal(self, host: str) -> float:
        """Note it."""
        return self._note("heal", host)


def test_steps_from_toml_stand_in_the_order_of_their_times() -> None:
    timeline = timeline_of(tomllib.loads(TOML))
    lossy = Duplex(parse("loss=20% delay=5ms"), parse("loss=20%"))
    assert timeline.steps == (
        Step(5.0, Verb.SET, "worker-2", lossy),
        Step(10.0, Verb.CUT, "worker-1"),
        Step(10.0, Verb.CUT, "worker-2"),
        Step(12.5, Verb.HEAL, "worker-1"),
        Step(12.5, Verb.HEAL, "worker-2"),
    )
    assert timeline.length_s == 12.5
    assert [str(step) for step in timeline.steps[:2]] == [
        "set worker-2 egress: loss=20% delay=5ms ingress: loss=20%",
        "cut worker-1",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps = 1", "unknown key 'steps' of a timeline"),
        ("step = 3", r"write each as \[\[step\]\]"),
        ("[[step]]\nat_s = 1", "it needs one of set, cut, heal"),
        ('[[step]]\nat_s = 1\ncut = "a"\nheal = "b"', "it needs one of set, cut, heal"),
        ('[[step]]\ncut = "a"', "at_s must be seconds"),
        ('[[step]]\nat_s = -1\ncut = "a"', "at_s=-1.0 is out of range"),
        ("[[step]]\nat_s = 1\ncut = 7", "7 is no host"),
        ("[[step]]\nat_s = 1\ncut = []", "no host"),
        ('[[step]]\nat_s = 1\nset = "a"', "a link belongs to set"),
        ('[[step]]\nat_s = 1\ncut = "a"\nlink = { loss = "1%" }', "a link belongs to set"),
        ('[[step]]\nat_s = 1\nset = "a"\nlink = { loss = "200%" }', "no probability"),
        ('[[step]]\nat_s = 1\ncut = "a"\nfor_s = 3', "unknown key 'for_s'"),
    ],
)
def test_what_is_no_timeline_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said):
        timeline_of(tomllib.loads(text))


def test_a_host_that_is_not_there_is_found_before_the_start() -> None:
    timeline = timeline_of(tomllib.loads(TOML))
    timeline.check_hosts({"worker-1", "worker-2", "master"})
    with pytest.raises(BadSpec, match="at 5 s: there is no host 'worker-2'; there are worker-1"):
        timeline.check_hosts({"worker-1"})


@given(st.lists(st.floats(0, 1000), max_size=30))
def test_steps_of_one_time_keep_their_order(times_s: list[float]) -> None:
    steps = [Step(round(at_s / 300), Verb.CUT, f"h{i}") for i, at_s in enumerate(times_s)]
    planned = Timeline(tuple(steps)).steps
    assert sorted(planned, key=lambda s: (s.at_s, int(s.host[1:]))) == list(planned)


def test_every_step_is_done_at_its_time_and_not_before() -> None:
    controls = Controls()
    timeline = Timeline(
        (
            Step(0.0, Verb.SET, "a", Duplex.both(parse("loss=1%"))),
            Step(0.03, Verb.CUT, "a"),
            Step(0.06, Verb.HEAL, "a"),
        )
    )
    start_s = time.monotonic()
    done = perform(timeline, controls, start_s=start_s)
    assert controls.asked == [("set loss=1%", "a"), ("cut", "a"), ("heal", "a")]
    assert [e.planned_s - start_s for e in done] == pytest.approx([0.0, 0.03, 0.06])
    assert [e.done_s for e in done] == controls.times_s
    assert all(executed.late_s >= 0 for executed in done)


def test_what_is_overdue_is_done_at_once() -> None:
    controls = Controls()
    timeline = Timeline(tuple(Step(float(i), Verb.CUT, "a") for i in range(3)))
    done = perform(timeline, controls, start_s=time.monotonic() - 100)
    assert len(done) == 3
    assert all(executed.late_s > 97 for executed in done)


def test_a_step_that_fails_ends_the_timeline() -> None:
    controls = Controls(broken="b")
    timeline = Timeline((Step(0, Verb.CUT, "a"), Step(0, Verb.CUT, "b"), Step(0, Verb.CUT, "c")))
    with pytest.raises(NetemError, match="b is gone"):
        perform(timeline, controls)
    assert controls.asked == [("cut", "a")]
    with Conductor(timeline, Controls(broken="a")) as conductor:
        with pytest.raises(NetemError, match="a is gone"):
            conductor.wait(5.0)
        assert conductor.executed == []


def test_leaving_the_block_stops_what_is_left() -> None:
    first = threading.Event()

    class Signal(Controls):
        def cut(self, host: str) -> float:
            first.set()
            return super().cut(host)

    controls = Signal()
    timeline = Timeline((Step(0, Verb.CUT, "a"), Step(1000, Verb.HEAL, "a")))
    with Conductor(timeline, controls) as conductor:
        assert first.wait(5.0)
        with pytest.raises(TimeoutError):
            conductor.wait(0.0)
    assert controls.asked == [("cut", "a")]
    assert [executed.step for executed in conductor.wait(5.0)] == [timeline.steps[0]]
