"""The middle of the star: each packet leaves by its sender's link and enters by its receiver's.

Pure. It looks at IPv4 destinations and at nothing else: no route, no TTL. What
is no IPv4, or for nobody here, ends here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from netem.backend import DirectionReading, LinkReading
from netem.emulator.direction import NEVER_S, Direction
from netem.spec import Duplex

_IPV4 = 4
_HEADER_BYTES = 20
_DESTINATION = slice(16, 20)


class Port:
    """One host's link: what it sends passes `egress`, what it gets passes `ingress`."""

    __slots__ = ("address", "egress", "ingress", "name")

    def __init__(self, name: str, address: str, duplex: Duplex, chance: str) -> None:
        self.name = name
        self.address = ipaddress.IPv4Address(address).packed
        self.egress = Direction(duplex.egress, _seed(duplex.egress.seed, name, "egress", chance))
        self.ingress = Direction(
            duplex.ingress, _seed(duplex.ingress.seed, name, "ingress", chance)
        )

    def change(self, duplex: Duplex, chance: str) -> None:
        """New LinkSpecs; what waits in the queues still arrives as it was to."""
        self.egress.change(duplex.egress, _seed(duplex.egress.seed, self.name, "egress", chance))
        self.ingress.change(
            duplex.ingress, _seed(duplex.ingress.seed, self.name, "ingress", chance)
        )

    def reading(self) -> LinkReading:
        """What holds, and what passed since it does."""
        return LinkReading(
            DirectionReading(self.egress.spec, self.egress.counters()),
            DirectionReading(self.ingress.spec, self.ingress.counters()),
        )


class Switch:
    """All ports of one emulator."""

    def __init__(self, ports: Mapping[str, Port]) -> None:
        self.ports = dict(ports)
        self._by_address = {port.address: port for port in ports.values()}
        self._egresses = [port.egress for port in ports.values()]
        self._ingresses = [(port, port.ingress) for port in ports.values()]

    def receive(self, now_s: float, port: Port, packet: bytes) -> None:
        """A host sent a packet."""
        if len(packet) >= _HEADER_BYTES and packet[0] >> 4 == _IPV4:
            port.egress.offer(now_s, packet)

    def deliver(self, now_s: float) -> Iterator[tuple[Port, list[tuple[float, bytes]]]]:
        """The packets that arrive now, by receiver, each with when it was to arrive."""
        for egress in self._egresses:
            for departure_s, packet in egress.due(now_s):
                receiver = self._by_address.get(packet[_DESTINATION])
                if receiver is not None:
                    # Not `now_s`: how late this process woke up must not add up.
                    receiver.ingress.offer(departure_s, packet)
        for port, ingress in self._ingresses:
            if packets := ingress.due(now_s):
                yield port, packets

    def next_due_s(self) -> float:
        """When there is something to do next, without a new packet; infinity for never."""
        egress_s = min((egress.next_due_s for egress in self._egresses), default=NEVER_S)
        ingress_s = min((ingress.next_due_s for _, ingress in self._ingresses), default=NEVER_S)
        return min(egress_s, ingress_s)


def _seed(seed: int, name: str, direction: str, chance: str) -> str:
    """Links that share a LinkSpec must not lose the same packets: each has a seed of its own."""
    return f"{seed or chance}/{name}/{direction}"
