"""Links by the kernel's own netem: a veth pair for every host, and a bridge between them.

The end in the host delays what the host sends, the end at the bridge what it
gets, so that no IFB device is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from netem.backend import Counters, DirectionReading, LinkReading
from netem.emulator.control import PortReading
from netem.errors import MissingFeature, NetemError
from netem.lab.links import INTERFACE, mtu_bytes, raise_interface
from netem.lab.namespaces import Place
from netem.lab.topology import Host, Topology
from netem.spec import PERFECT, Duplex, LinkSpec
from netem.tc.backend import TcBackend
from netem.tc.command import change, must
from netem.tc.readback import differences
from netem.tc.runner import LocalRunner, drive

BRIDGE: Final = "middle"
# A veth passes 64 kB on as one packet, which the other end's netem would lose as one.
_SINGLE_PACKETS: Final = (
    ("ethtool", "-K", INTERFACE, "tso", "off", "gso", "off", "gro", "off"),
    ("ip", "link", "set", "dev", INTERFACE, "gso_max_segs", "1"),
)


class VethLinks:
    """As `Links` says; needs `sch_netem`, veth and a bridge."""

    name: Final = "tc"
    watched: Final = None

    def __init__(self, topology: Topology, places: Mapping[str, Place], home: Place) -> None:
        self._hosts = topology.hosts
        self._places = places
        self._home = home
        self._tc = TcBackend()
        try:
            _build(topology, places)
        except NetlinkError as problem:
            raise MissingFeature(
                "veth",
                f"no veth pairs on a bridge could be made: {problem}; load their modules "
                "(`modprobe veth bridge`), or take --backend userspace",
            ) from problem
        for host in topology.hosts:
            with places[host.name].inside(home):
                raise_interface(host.address)
                for command in _SINGLE_PACKETS:
                    drive(must(change(*command)), LocalRunner())
        self._held = {host.name: Duplex() for host in topology.hosts}
        self._before = {host.name: self._read(host.name) for host in topology.hosts}

    def apply(self, host: Host, link: Duplex) -> None:
        """As `Links.apply`."""
        try:
            if link != self._held[host.name]:
                self._apply(host.name, link)
        except NetemError:
            self._apply(host.name, self._held[host.name])
            raise
        self._held[host.name] = link
        self._before[host.name] = self._read(host.name)

    def observe(self) -> Mapping[str, PortReading]:
        """As `Links.observe`; the kernel does not tell delays."""
        return {host.name: self._since(host.name) for host in self._hosts}

    def close(self) -> None:
        """Nothing was started; the kernel removes the devices with their namespaces."""

    def _apply(self, host: str, link: Duplex) -> None:
        # The MTU is one for the pair: a frame that one end sends must fit the other.
        mtu = mtu_bytes(link)
        with self._places[host].inside(self._home):
            self._tc.apply(INTERFACE, Duplex(egress=replace(link.egress, mtu_bytes=mtu)))
        self._tc.apply(host, Duplex(egress=replace(link.ingress, mtu_bytes=mtu)))

    def _read(self, host: str) -> LinkReading:
        held = self._held[host]
        with self._places[host].inside(self._home):
            egress = self._direction(INTERFACE, held.egress)
        return LinkReading(egress, self._direction(host, held.ingress))

    def _direction(self, interface: str, held: LinkSpec) -> DirectionReading:
        """What the netem of one end says, or for a perfect link the interface itself."""
        reading = self._tc.observe(interface)
        if reading is None or replace(held, mtu_bytes=0) == PERFECT:
            return DirectionReading(held, _sent(interface))
        found = replace(reading.egress.spec, mtu_bytes=held.mtu_bytes)
        # The kernel rounds, and writes out what is at its default.
        spec = found if differences(held, found) else held
        return DirectionReading(spec, reading.egress.counters)

    def _since(self, host: str) -> PortReading:
        now, before = self._read(host), self._before[host]
        link = LinkReading(_since(now.egress, before.egress), _since(now.ingress, before.ingress))
        return PortReading(link, None, None)


def _build(topology: Topology, places: Mapping[str, Place]) -> None:
    """The bridge, and a pair for every host: one end on the bridge, one in the host."""
    with IPRoute() as route:
        bridge = _add(route, ifname=BRIDGE, kind="bridge")
        route.link("set", index=bridge, state="up")
        for host in topology.hosts:
            peer = {"ifname": INTERFACE, "net_ns_fd": places[host.name].net_fd}
            index = _add(route, ifname=host.name, kind="veth", peer=peer)
            route.link("set", index=index, master=bridge, state="up")


def _add(route: IPRoute, **link: Any) -> int:
    route.link("add", **link)
    (index,) = route.link_lookup(ifname=link["ifname"])
    return int(index)


def _sent(interface: str) -> Counters:
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=interface)
        (link,) = route.get_links(index)
        stats = link.get_attr("IFLA_STATS64")
    return Counters(stats["tx_packets"], stats["tx_bytes"], stats["tx_dropped"])


def _since(now: DirectionReading, before: DirectionReading) -> DirectionReading:
    return replace(now, counters=now.counters.since(before.counters))
