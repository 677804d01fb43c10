"""What the pages show of labs works, and the table of `netem lab status` says what it should."""

from __future__ import annotations

import io
import re
import tomllib

from rich.console import Console

from netem.backend import Counters, DirectionReading, LinkReading
from netem.grammar import parse
from netem.lab.display import table_of
from netem.lab.messages import LinkState, State
from netem.lab.topology import topology_of
from netem.spec import CUT
from netem.timeline import timeline_of
from tests.shared import REPOSITORY


def toml_blocks() -> list[str]:
    """Every TOML of docs/netem.md."""
    page = (REPOSITORY / "docs/netem.md").read_text(encoding="utf-8")
    return re.findall(r"```toml\n(.*?)```", page, re.DOTALL)


def test_the_lab_and_the_timeline_of_the_page_are_valid_and_fit_together() -> None:
    (lab,) = (tomllib.loads(text) for text in toml_blocks() if "star.toml" in text)
    (timeline,) = (tomllib.loads(text) for text in toml_blocks() if "[[step]]" in text)
    topology = topology_of(lab)
    assert topology.host("worker-2").link.egress.rate_bps == 2_000_000
    timeline_of(timeline).check_hosts({host.name for host in topology.hosts})


def test_the_table_says_requested_and_observed() -> None:
    reading = LinkReading(
        DirectionReading(parse("loss=10%"), Counters(900, 125_000, 100, 0)),
        DirectionReading(parse("delay=5ms rate=1mbit"), Counters()),
    )
    good = LinkState(reading.duplex, False, reading, 0.04, 5.2, 2.0)
    nothing = DirectionReading(CUT, Counters())
    cut = LinkState(reading.duplex, True, LinkReading(nothing, nothing), None, None, 1.0)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table_of(State({"worker-1": good, "worker-2": cut}, 60.0)))
    lines = [re.split(r"  +", line.strip()) for line in console.export_text().splitlines()]
    assert lines[1] == [
        *("worker-1", "egress", "10.0% / 10.0%", "0.0ms / 0.0ms", "any / 0.50mbit"),
        *("900", "100", "0", "loss=10%"),
    ]
    assert lines[2] == [
        *("ingress", "0.0% / –", "5.0ms / 5.2ms", "1mbit / 0.00mbit"),
        *("0", "0", "0", "delay=5ms rate=1mbit"),
    ]
    assert lines[3][2] == "100.0% / –"
    assert lines[3][-1] == "cut (then loss=10%)"
