"""The middle of the star: whose link a packet passes, and which packets end there."""

from __future__ import annotations

import ipaddress

from netem.emulator.switch import Port, Switch
from netem.grammar import parse
from netem.spec import Duplex

A, B = "10.77.0.1", "10.77.1.1"


def ip_packet(source: str, destination: str, payload: bytes = b"") -> bytes:
    """An IPv4 packet as far as a switch looks at it."""
    ends = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    return b"\x45".ljust(12, b"\0") + ends + payload


def switch(a: str = "0", b: str = "0") -> Switch:
    """Two hosts, each link the same both ways."""
    links = {"a": (A, a), "b": (B, b)}
    return Switch({n: Port(n, at, Duplex.both(parse(t)), "1") for n, (at, t) in links.items()})


def arrivals(one: Switch, now_s: float) -> list[tuple[str, bytes]]:
    """Who gets what now."""
    return [(port.name, packet) for port, packets in one.deliver(now_s) for _, packet in packets]


def test_a_packet_reaches_its_receiver_and_nobody_else() -> None:
    one = switch()
    one.receive(0.0, one.ports["a"], ip_packet(A, B, b"hello"))
    assert arrivals(one, 0.0) == [("b", ip_packet(A, B, b"hello"))]
    assert one.ports["a"].reading().egress.counters.delivered_packets == 1
    assert one.ports["b"].reading().ingress.counters.delivered_packets == 1
    assert one.ports["b"].reading().egress.counters.delivered_packets == 0


def test_a_packet_passes_both_links() -> None:
    one = switch("delay=10ms", "delay=5ms")
    one.receive(1.0, one.ports["a"], ip_packet(A, B))
    assert arrivals(one, 1.0) == []
    assert one.next_due_s() == 1.01
    assert arrivals(one, 1.01) == []
    assert one.next_due_s() == 1.015
    assert arrivals(one, 1.015) == [("b", ip_packet(A, B))]


def test_a_late_emulator_delays_a_packet_once_and_not_at_both_links() -> None:
    one = switch("delay=10ms", "delay=5ms")
    one.receive(1.0, one.ports["a"], ip_packet(A, B))
    assert arrivals(one, 1.013) == [], "3 ms late"
    assert one.next_due_s() == 1.015
    assert arrivals(one, 1.015) == [("b", ip_packet(A, B))]


def test_a_packet_for_nobody_and_one_of_another_protocol_end_here() -> None:
    one = switch()
    for packet in (ip_packet(A, "10.77.9.9"), b"\x60" + bytes(60), b"\x45", b""):
        one.receive(0.0, one.ports["a"], packet)
    assert arrivals(one, 0.0) == []
    # The first left by its own link, as on a real one; the others are no traffic of a lab.
    assert one.ports["a"].reading().egress.counters.delivered_packets == 1


def test_links_that_share_a_seed_do_not_lose_the_same_packets() -> None:
    one = switch("loss=50% seed=7", "loss=50% seed=7")
    for number in range(200):
        one.receive(0.0, one.ports["a"], ip_packet(A, B, bytes([number])))
        one.receive(0.0, one.ports["b"], ip_packet(B, A, bytes([number])))
    got: dict[str, set[int]] = {"a": set(), "b": set()}
    for name, packet in arrivals(one, 0.0):
        got[name].add(packet[-1])
    assert got["a"] != got["b"]


def test_a_seed_gives_the_same_losses_again() -> None:
    def survivors() -> list[bytes]:
        one = switch("loss=50% seed=7")
        for number in range(200):
            one.receive(0.0, one.ports["a"], ip_packet(A, B, bytes([number])))
        return [packet for _, packet in arrivals(one, 0.0)]

    assert survivors() == survivors()
    assert 50 < len(survivors()) < 150
