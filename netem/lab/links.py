"""How the hosts of a lab are joined: one class for each backend, the same verbs.

Each builds an interface `eth0` in every host and the middle in the keeper's own
network namespace, then gives links their LinkSpecs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec
from pyroute2 import IPRoute

from netem.emulator import control
from netem.emulator.control import PortReading
from netem.errors import Mismatch, NetemError
from netem.lab.namespaces import Place
from netem.lab.topology import PREFIX_BITS, Host, Topology
from netem.lab.tun import open_tun
from netem.spec import Duplex

INTERFACE: Final = "eth0"
MTU_BYTES: Final = 1500
DEVICE_QUEUE_PACKETS: Final = 4000
"""Packets that may wait in a TUN device while the emulator is busy: 50 ms at 1 Gbit/s."""
EMULATOR_TIMEOUT_S: Final = 5.0


class Links(Protocol):
    """All links of one lab."""

    @property
    def watched(self) -> subprocess.Popen[bytes] | None:
        """A process without which no link works; None if the kernel does it all."""
        ...

    def apply(self, host: Host, link: Duplex) -> None:
        """Make one link as requested.

        Raises:
            NetemError: it could not be; the link is as before.
        """
        ...

    def observe(self) -> Mapping[str, PortReading]:
        """What holds and what passed, by host; without delays where nobody measures them."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class UserspaceLinks:
    """TUN devices, joined by an emulator process."""

    def __init__(self, topology: Topology, places: Mapping[str, Place], home: Place) -> None:
        self._places = places
        self._home = home
        self._mtu_bytes = dict.fromkeys(places, MTU_BYTES)
        ports = []
        for host in topology.hosts:
            with places[host.name].inside(home):
                fd = open_tun(INTERFACE)
                raise_interface(host.address)
            ports.append(control.PortConfig(host.name, host.address, fd))
        self._socket, self.watched = _start_emulator(ports)

    def apply(self, host: Host, link: Duplex) -> None:
        """As `Links.apply`."""
        self._set_mtu(host.name, link)
        held = self._ask(control.Set(host.name, link))[host.name].link.duplex
        if held != link:
            raise Mismatch(f"link of {host.name}", str(link), str(held))

    def observe(self) -> Mapping[str, PortReading]:
        """As `Links.observe`."""
        return self._ask(control.Observe())

    def close(self) -> None:
        """The emulator ends when its socket closes."""
        self._socket.close()
        self.watched.wait(EMULATOR_TIMEOUT_S)

    def _set_mtu(self, host: str, link: Duplex) -> None:
        wanted_bytes = mtu_bytes(link)
        # Most changes leave it alone, and a cut must not wait for it.
        if wanted_bytes != self._mtu_bytes[host]:
            with self._places[host].inside(self._home):
                set_mtu(wanted_bytes)
            self._mtu_bytes[host] = wanted_bytes

    def _ask(self, request: control.Request) -> dict[str, PortReading]:
        try:
            self._socket.send(msgspec.json.encode(request))
            answer = self._socket.recv(control.MESSAGE_BYTES_MAX)
        except OSError as problem:
            raise NetemError("emulator", f"the emulator does not answer: {problem}") from problem
        return msgspec.json.decode(answer, type=control.Readings).ports


def raise_interface(address: str) -> None:
    """Give the interfaces of the host that this process is in their addresses, and start them."""
    with IPRoute() as route:
        (loopback,) = route.link_lookup(ifname="lo")
        (index,) = route.link_lookup(ifname=INTERFACE)
        route.link("set", index=loopback, state="up")
        route.addr("add", index=index, address=address, prefixlen=PREFIX_BITS)
        route.link("set", index=index, state="up", mtu=MTU_BYTES, txqlen=DEVICE_QUEUE_PACKETS)


def mtu_bytes(link: Duplex) -> int:
    """MTU of a host's interface: the egress's first, as it is the one that sends."""
    return link.egress.mtu_bytes or link.ingress.mtu_bytes or MTU_BYTES


def set_mtu(wanted_bytes: int) -> None:
    """Set it in the host that this process is in."""
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=INTERFACE)
        route.link("set", index=index, mtu=wanted_bytes)


def _start_emulator(
    ports: list[control.PortConfig],
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        config = control.Config(theirs.fileno(), tuple(ports))
        emulator = subprocess.Popen(
            [sys.executable, "-m", "netem.emulator", msgspec.json.encode(config).decode()],
            pass_fds=[theirs.fileno(), *(port.fd for port in ports)],
            stdin=subprocess.DEVNULL,
        )
    # Only the emulator may hold the devices: they must go when it goes.
    for port in ports:
        os.close(port.fd)
    ours.settimeout(EMULATOR_TIMEOUT_S)
    return ours, emulator
