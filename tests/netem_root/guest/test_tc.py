"""The backend `tc` against a real `sch_netem`: reads back what it set, undoes what it did."""

from __future__ import annotations

import socket

import pytest
from hypothesis import HealthCheck, given, settings

from netem.errors import CommandFailed, Mismatch, MissingFeature, Refused
from netem.grammar import parse
from netem.spec import CUT, PERFECT, Duplex, LinkSpec
from netem.tc import procedure
from netem.tc.backend import TcBackend
from netem.tc.command import Command, Done
from netem.tc.readback import differences
from netem.tc.runner import LocalRunner, drive
from tests.netem_root.guest.net import FAR_IP, Pair, inside, run
from tests.unit.netem.specs import link_specs

EXAMPLES = 2
SPECS = [
    "loss=33.3333333%",
    "bursts=1%,10%,70%,0.1% delay=50.123ms jitter=5ms correlation=25%",
    "delay=50ms jitter=5ms distribution=normal",
    "delay=20ms jitter=2ms",
    "delay=20ms jitter=2ms distribution=paretonormal bursts=5%,50%",
    "delay=10ms reorder=25% reorder_correlation=50% gap=5",
    "delay=10ms reorder=25% duplicate=1% corrupt=0.1% rate=1234568bit",
    "rate=20gbit limit=5 mtu=1400",
    "loss=5% delay=240s jitter=2s rate=1kbit limit=1000000 mtu=1280",
]


def test_what_is_set_is_read_back_and_taken_away_without_a_trace(pair: Pair) -> None:
    backend, before, last = TcBackend(), pair.snapshot(), PERFECT
    for spec in map(parse, SPECS):
        # In each direction, on top of each other, in place of a fresh one.
        applied = backend.apply(pair.link, Duplex(egress=spec, ingress=_without_mtu(last)))
        assert differences(spec, applied.egress.spec) == []
        assert differences(_without_mtu(last), _without_mtu(applied.ingress.spec)) == []
        last = spec
    seen = backend.observe(pair.link)
    assert seen is not None
    assert seen.duplex == applied.duplex
    assert pair.snapshot() != before
    assert backend.clear(pair.link)
    assert pair.snapshot() == before
    assert backend.observe(pair.link) is None
    assert not backend.clear(pair.link), "there is nothing left to take away"


@settings(
    max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
@given(one=link_specs(), other=link_specs())
def test_any_spec_takes_the_place_of_any_other(pair: Pair, one: LinkSpec, other: LinkSpec) -> None:
    one, other = _for_this_kernel(one), _for_this_kernel(other)
    for duplex in (Duplex(one, other), Duplex(other, one)):
        found = TcBackend().apply(pair.link, duplex).duplex
        assert differences(duplex.egress, found.egress) == []
        assert differences(duplex.ingress, found.ingress) == []
    TcBackend().clear(pair.link)


def _for_this_kernel(spec: LinkSpec) -> LinkSpec:
    """Without a seed, which it doesn't know, and without an MTU, which both directions share."""
    return parse("seed=0 mtu=0", base=spec)


def _without_mtu(spec: LinkSpec) -> LinkSpec:
    return parse("mtu=0", base=spec)


def test_a_dry_run_shows_the_commands_that_are_run_and_changes_nothing(pair: Pair) -> None:
    ran: list[Command] = []
    local = LocalRunner()

    def listen(command: Command) -> Done:
        ran.append(command)
        return local(command)

    duplex, before = Duplex.both(parse("loss=10% delay=5ms mtu=1400")), pair.snapshot()
    planned = TcBackend().plan(pair.link, duplex)
    assert pair.snapshot() == before
    TcBackend(run=listen).apply(pair.link, duplex)
    assert [c for c in ran if c.changes] == planned
    assert not any(c.changes for c in ran if c not in planned)
    ran.clear()
    planned = TcBackend().plan_clear(pair.link)
    TcBackend(run=listen).clear(pair.link)
    assert [c for c in ran if c.changes] == planned


def test_a_change_keeps_the_packets_that_are_under_way(pair: Pair) -> None:
    backend = TcBackend()
    with inside(pair.far):
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        far.bind((FAR_IP, 9))
        far.settimeout(30.0)
        # Each end learns where the other is, which takes a packet each way.
        near.sendto(b"hello", (FAR_IP, 9))
        assert far.recv(99) == b"hello"
        backend.apply(pair.link, Duplex(parse("delay=4s"), parse("delay=1ms")))
        near.sendto(b"before the cut", (FAR_IP, 9))
        cut = backend.apply(pair.link, Duplex.both(CUT))
        assert cut.egress.counters.queued_packets > 0
        near.sendto(b"after the cut", (FAR_IP, 9))
        backend.apply(pair.link, Duplex.both(parse("delay=1ms")))
        near.sendto(b"after it healed", (FAR_IP, 9))
        assert {far.recv(99), far.recv(99)} == {b"before the cut", b"after it healed"}
    backend.clear(pair.link)


@pytest.mark.parametrize(
    ("command", "where", "undo"),
    [
        ("tc qdisc add dev near0 root pfifo", "root", "tc qdisc del dev near0 root"),
        ("tc qdisc add dev near0 root netem loss 1%", "root", "tc qdisc del dev near0 root"),
        ("tc qdisc add dev near0 ingress", "ingress", "tc qdisc del dev near0 ingress"),
        ("tc qdisc add dev near0 clsact", "ingress", "tc qdisc del dev near0 clsact"),
    ],
)
def test_what_belongs_to_others_is_refused_and_stays(
    pair: Pair, command: str, where: str, undo: str
) -> None:
    run(*command.split())
    before = pair.snapshot()
    with pytest.raises(Refused, match=f"{where} qdisc that is not ours.*tc qdisc del dev near0"):
        TcBackend().apply(pair.link, Duplex.both(parse("loss=1%")))
    assert TcBackend().observe(pair.link) is None
    assert not TcBackend().clear(pair.link)
    assert pair.snapshot() == before
    run(*undo.split())


def test_the_way_in_is_guarded(pair: Pair) -> None:
    local = LocalRunner()
    drive(procedure.guard(pair.link, None), local)
    with pytest.raises(Refused, match=f"SSH session with {FAR_IP}.*--force"):
        drive(procedure.guard(pair.link, f"{FAR_IP} 50000 10.77.0.1 22"), local)
    drive(procedure.guard("lo", f"{FAR_IP} 50000 10.77.0.1 22"), local)
    run("ip", "route", "add", "default", "via", FAR_IP)
    with pytest.raises(Refused, match=r"near0 carries the default route.*--force"):
        drive(procedure.guard(pair.link, None), local)
    run("ip", "route", "del", "default")


def test_an_alias_of_somebody_else_comes_back(pair: Pair) -> None:
    run("ip", "link", "set", "dev", pair.link, "alias", "rack 3, port 7")
    before = pair.snapshot()
    TcBackend().apply(pair.link, Duplex.both(parse("loss=1%")))
    TcBackend().apply(pair.link, Duplex.both(parse("loss=2% mtu=1400")))
    assert "rack 3, port 7" in str(pair.snapshot()["links"])
    TcBackend().clear(pair.link)
    assert pair.snapshot() == before
    run("ip", "link", "set", "dev", pair.link, "alias", "")


class Saboteur:
    """A runner that changes or fails the first command that a text is found in."""

    def __init__(self, text: str, instead: str | None) -> None:
        self._local, self._text, self._instead = LocalRunner(), text, instead

    def __call__(self, command: Command) -> Done:
        line = " ".join(command.argv)
        if not command.changes or self._text not in line:
            return self._local(command)
        text, self._text = self._text, "\0"
        if self._instead is None:
            raise KeyboardInterrupt
        return self._local(Command(tuple(line.replace(text, self._instead).split())))


@pytest.mark.parametrize(
    ("was", "text", "instead", "error"),
    [
        ("0", "loss random 10%", "loss random 11%", Mismatch),
        ("delay=7ms", "loss random 10%", "loss random 11%", Mismatch),
        ("delay=20ms jitter=2ms distribution=normal", "mtu 1400", "mtu 1399", Mismatch),
        ("delay=7ms", "rate 8000000bit", "speed 5", CommandFailed),
        ("0", "tc filter add", "tc filter add bad", CommandFailed),
        ("loss=3% duplicate=1%", "tc filter add", None, KeyboardInterrupt),
        ("0", "-K", None, KeyboardInterrupt),
        ("0", "alias", "addr", CommandFailed),
    ],
)
def test_what_fails_in_the_middle_leaves_what_was(
    pair: Pair, was: str, text: str, instead: str | None, error: type[BaseException]
) -> None:
    TcBackend().apply(pair.link, Duplex(egress=parse(was)))
    before = pair.snapshot()
    sabotaged = TcBackend(run=Saboteur(text, instead))
    # The last asks for jitter of another shape, for which the qdisc is replaced.
    asked = Duplex(parse("loss=10% mtu=1400 delay=9ms jitter=1ms"), parse("rate=8mbit"))
    with pytest.raises(error):
        sabotaged.apply(pair.link, asked)
    assert pair.snapshot() == before
    TcBackend().clear(pair.link)


def test_a_mismatch_says_what_was_asked_and_what_is(pair: Pair) -> None:
    sabotaged = TcBackend(run=Saboteur("loss random 10%", "loss random 11%"))
    with pytest.raises(Mismatch) as caught:
        sabotaged.apply(pair.link, Duplex(egress=parse("loss=10%")))
    assert str(caught.value) == ("near0 egress: requested loss=10%, but the kernel says loss=11%")


def test_what_this_kernel_lacks_is_named_and_nothing_is_left(pair: Pair) -> None:
    before = pair.snapshot()
    with pytest.raises(MissingFeature, match=r"seed.*6\.6") as caught:
        TcBackend().apply(pair.link, Duplex.both(parse("loss=1% seed=3")))
    assert caught.value.code == "no_seed"
    assert pair.snapshot() == before


@pytest.mark.parametrize("name", ["nope0", "-h", "a b", "x" * 16, ""])
def test_an_interface_that_is_not_there_is_named(pair: Pair, name: str) -> None:
    with pytest.raises(Refused, match="ip link"):
        TcBackend().apply(name, Duplex.both(parse("loss=1%")))


def test_a_perfect_link_is_a_clear(pair: Pair) -> None:
    before = pair.snapshot()
    TcBackend().apply(pair.link, Duplex.both(parse("loss=1%")))
    assert TcBackend().apply(pair.link, Duplex()).duplex == Duplex(PERFECT, PERFECT)
    assert pair.snapshot() == before
