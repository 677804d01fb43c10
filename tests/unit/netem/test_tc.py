"""The pure parts of the backend `tc`: words, what reads back, notes, plans. A real kernel has
its say in `tests/netem_root/guest/test_tc.py`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netem.errors import BadSpec, CommandFailed, MissingFeature, Refused
from netem.grammar import parse
from netem.spec import Distribution, Duplex, LinkSpec
from netem.tc.arguments import netem_arguments
from netem.tc.command import Command, Done, must
from netem.tc.plan import apply_steps, clear_steps
from netem.tc.procedure import explained
from netem.tc.readback import counters_of, differences, spec_of
from netem.tc.record import Record
from netem.tc.runner import NOT_FOUND, LocalRunner, drive
from netem.tc.state import State
from tests.unit.netem.specs import link_specs

# As `tc -j -s qdisc show` of iproute2 6.1 wrote it on Linux 6.1.
FULL: dict[str, Any] = json.loads(
    '{"kind":"netem","handle":"4c4b:","root":true,"refcnt":2,"options":{"limit":200,"delay":{'
    '"delay":0.05,"jitter":0.005,"correlation":0.25},"loss-gemodel":{"p":0.01,"r":0.1,"1-h":0.7,'
    '"1-k":0.001},"duplicate":{"duplicate":0.005,"correlation":0},"reorder":{"reorder":0.01,'
    '"correlation":0.5},"corrupt":{"corrupt":0.0001,"correlation":0},"rate":{"rate":12500000,'
    '"packetoverhead":0,"cellsize":0,"celloverhead":0},"ecn":false,"gap":5},"bytes":1234,'
    '"packets":90,"drops":10,"overlimits":0,"requeues":0,"backlog":0,"qlen":3}'
)
TEXT = (
    "bursts=1%,10%,70%,0.1% delay=50ms jitter=5ms distribution=pareto correlation=25% "
    "reorder=1% reorder_correlation=50% gap=5 duplicate=0.5% corrupt=0.01% rate=100mbit limit=200"
)
FRESH = State(interface="eth1", index=7, mtu_bytes=1500, offload=("tso", "gso"), gso_segments=65535)


def texts(state: State, duplex: Duplex) -> list[str]:
    return [str(step.do) for step in apply_steps(state, duplex)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss=10%", "limit 1000 loss random 10%"),
        ("bursts=1%,10%", "limit 1000 loss gemodel 1% 10% 100% 0%"),
        ("delay=50ms", "limit 1000 delay 50ms"),
        ("delay=0.25ms jitter=0.05ms", "limit 1000 delay 0.25ms 0.05ms 0%"),
        (
            "delay=9ms jitter=1ms distribution=normal correlation=5%",
            "limit 1000 delay 9ms 1ms 5% distribution normal",
        ),
        ("delay=9ms reorder=5% gap=3", "limit 1000 delay 9ms reorder 5% 0% gap 3"),
        (
            "rate=1mbit limit=7 duplicate=1% corrupt=2% seed=5",
            "limit 7 duplicate 1% corrupt 2% rate 1000000bit seed 5",
        ),
        ("mtu=1400", "limit 1000"),
    ],
)
def test_a_spec_as_words_of_tc(text: str, words: str) -> None:
    assert " ".join(netem_arguments(parse(text))) == words


def test_a_change_names_what_it_resets() -> None:
    assert " ".join(netem_arguments(parse("loss=1%"), complete=True)) == (
        "limit 1000 delay 0ms 0ms 0% loss random 1% duplicate 0% corrupt 0% reorder 0% 0% rate 0bit"
    )


def test_what_tc_says_is_a_spec_and_counters() -> None:
    spec = spec_of(FULL, distribution=Distribution.PARETO, mtu_bytes=0)
    assert str(spec) == TEXT
    counters = counters_of(FULL)
    assert (counters.delivered_packets, counters.dropped_packets) == (90, 10)
    assert counters.observed_loss == pytest.approx(10 / 103)


@given(link_specs())
def test_six_digits_are_no_difference(spec: LinkSpec) -> None:
    """As the kernel would say it: probabilities in 2^-32, times in 64 ns, six digits of each."""
    assert (
        differences(
            spec, spec_of(_as_read(spec), distribution=spec.distribution, mtu_bytes=spec.mtu_bytes)
        )
        == []
    )


def _as_read(spec: LinkSpec) -> dict[str, Any]:
    def chance(value: float) -> float:
        return float(f"{round(value * (2**32 - 1)) / (2**32 - 1):.6g}")

    def seconds(value_ms: float) -> float:
        return float(f"{round(value_ms * 1e6 / 64) * 64 / 1e9:.6g}")

    options: dict[str, Any] = {"limit": spec.queue_packets, "gap": spec.gap, "seed": spec.seed}
    if spec.delay_ms:
        options["delay"] = {
            "delay": seconds(spec.delay_ms),
            "jitter": seconds(spec.jitter_ms),
            "correlation": chance(spec.correlation),
        }
    if spec.loss:
        options["loss-random"] = {"loss": chance(spec.loss)}
    if spec.bursts:
        numbers = map(chance, spec.bursts.numbers)
        options["loss-gemodel"] = dict(zip(("p", "r", "1-h", "1-k"), numbers, strict=True))
    if spec.reorder:
        correlation = chance(spec.reorder_correlation)
        options["reorder"] = {"reorder": chance(spec.reorder), "correlation": correlation}
        options["gap"] = spec.gap or 1
    options["duplicate"] = {"duplicate": chance(spec.duplicate)}
    options["corrupt"] = {"corrupt": chance(spec.corrupt)}
    options["rate"] = {"rate": spec.rate_bps // 8}
    return {"kind": "netem", "handle": "4c4b:", "options": options}


@pytest.mark.parametrize(
    ("asked", "found", "pairs"),
    [
        ("loss=10%", "loss=10.01%", [("loss=10%", "loss=10.01%")]),
        ("loss=10%", "0", [("loss=10%", "loss=0%")]),
        ("0", "bursts=1%,10%", [("bursts=None", "bursts=1%,10%,100%,0%")]),
        ("delay=5ms", "delay=5.001ms", [("delay=5ms", "delay=5.001ms")]),
        ("seed=5", "seed=6", [("seed=5", "seed=6")]),
        ("0", "seed=6", []),
        ("0", "limit=1000", []),
        ("limit=999", "limit=1000", [("limit=999", "limit=1000")]),
    ],
)
def test_a_difference_is_found_and_named(
    asked: str, found: str, pairs: list[tuple[str, str]]
) -> None:
    assert differences(parse(asked), parse(found)) == pairs


@given(
    mtu=st.integers(68, 65535),
    offload=st.lists(st.sampled_from(["tso", "gso", "gro", "lro"]), unique=True),
    shapes=st.tuples(st.sampled_from(Distribution), st.sampled_from(Distribution)),
    alias=st.text(max_size=60),
    segments=st.integers(0, 65535),
)
def test_a_note_reads_back(
    mtu: int,
    offload: list[str],
    shapes: tuple[Distribution, Distribution],
    alias: str,
    segments: int,
) -> None:
    record = Record(mtu, tuple(offload), *shapes, alias=alias, gso_segments=segments)
    assert Record.parse(str(record)) == record


def test_clear_puts_back_what_the_note_says_was() -> None:
    note = "netem mtu=1500 offload=tso segments=65535 shape=uniform,uniform was=uplink"
    changed = State("eth1", 7, 1400, alias=note, gso_segments=1)
    assert [str(step.do) for step in clear_steps(changed)] == [
        "ip link set dev eth1 mtu 1500",
        "ethtool -K eth1 tso on",
        "ip link set dev eth1 gso_max_segs 65535",
        "ip link set dev eth1 alias uplink",
    ]
    before_segments = note.replace("segments=65535 ", "")
    older = State("eth1", 7, 1500, alias=before_segments, gso_segments=65535)
    assert "gso_max_segs" not in " ".join(str(step.do) for step in clear_steps(older))
    again = [str(step.do) for step in apply_steps(older, Duplex.both(parse("loss=1%")))]
    assert "segments=65535" in again[0]
    assert "ip link set dev eth1 gso_max_segs 1" in again


@pytest.mark.parametrize("alias", ["", "uplink", "netem", "netem mtu=x"])
def test_an_alias_of_others_is_no_note(alias: str) -> None:
    assert Record.parse(alias) is None


def test_the_commands_for_a_fresh_interface() -> None:
    assert texts(FRESH, Duplex(parse("loss=10% mtu=1400"), parse("delay=5ms"))) == [
        "ip link set dev eth1 alias "
        "'netem mtu=1500 offload=tso,gso segments=65535 shape=uniform,uniform was='",
        "ethtool -K eth1 tso off gso off",
        "ip link set dev eth1 gso_max_segs 1",
        "ip link set dev eth1 mtu 1400",
        "tc qdisc add dev eth1 root handle 4c4b: netem limit 1000 loss random 10%",
        "ip link add name netem-ifb7 type ifb",
        "ip link set dev netem-ifb7 up",
        "tc qdisc add dev netem-ifb7 root handle 4c4b: netem limit 1000 delay 5ms",
        "tc qdisc add dev eth1 handle ffff: ingress",
        "tc filter add dev eth1 parent ffff: protocol all pref 19531 matchall action mirred "
        "egress redirect dev netem-ifb7",
    ]


def test_every_step_but_the_last_can_be_taken_back() -> None:
    steps = apply_steps(FRESH, Duplex.both(parse("loss=1% mtu=1400")))
    assert [str(s.do) for s in steps if s.undo is None] == [
        "ip link set dev netem-ifb7 up",  # goes with the device
        str(steps[-1].do),  # goes with its qdisc
    ]


def test_a_clear_of_what_is_not_ours_does_nothing() -> None:
    assert clear_steps(FRESH) == []
    foreign = State("eth1", 7, 1500, alias="uplink", root={"kind": "fq", "handle": "8001:"})
    assert clear_steps(foreign) == []
    with pytest.raises(Refused, match=r"fq 8001:.*tc qdisc del dev eth1 root"):
        apply_steps(foreign, Duplex.both(parse("loss=1%")))


def test_two_mtus_for_one_interface_are_refused() -> None:
    with pytest.raises(BadSpec, match=r"mtu=1400 and mtu=1300.*keep one"):
        apply_steps(FRESH, Duplex(parse("mtu=1400"), parse("mtu=1300")))


def test_an_alias_without_room_for_the_note_is_refused() -> None:
    with pytest.raises(Refused, match=r"230 characters.*shorten"):
        apply_steps(State("eth1", 7, 1500, alias="x" * 230), Duplex.both(parse("loss=1%")))


def test_a_failed_command_that_means_a_missing_feature_says_so() -> None:
    failed = CommandFailed(("tc",), 2, "Error: Specified qdisc kind is unknown.")
    found = explained(failed)
    assert isinstance(found, MissingFeature)
    assert found.code == "no_sch_netem"
    assert "netem doctor" in str(found)
    assert explained(CommandFailed(("tc",), 2, "other")).code == "command_failed"


def test_a_tool_that_is_not_there_is_a_status_and_a_message() -> None:
    done = LocalRunner()(Command(("no-such-tool-of-netem",)))
    assert (done.returncode, done.stderr) == (NOT_FOUND, "no-such-tool-of-netem: command not found")
    with pytest.raises(CommandFailed, match="status 127: no-such-tool"):
        drive(must(Command(("no-such-tool-of-netem",))), lambda _: done)


def test_an_interrupt_reaches_the_procedure() -> None:
    heard: list[str] = []

    def procedure():  # type: ignore[no-untyped-def]
        try:
            yield Command(("first",))
        except KeyboardInterrupt:
            yield Command(("undo",))
            raise

    def run(command: Command) -> Done:
        heard.append(str(command))
        if heard == ["first"]:
            raise KeyboardInterrupt
        return Done()

    with pytest.raises(KeyboardInterrupt):
        drive(procedure(), run)
    assert heard == ["first", "undo"]
