"""How the hosts of a lab are joined: what every backend does for a lab, and what they share.

Each builds an interface `eth0` in every host and the middle in the keeper's own
network namespace, then gives links their LinkSpecs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Final, Protocol

from pyroute2 import IPRoute

from netem.emulator.control import PortReading
from netem.lab.topology import PREFIX_BITS, Host
from netem.spec import Duplex

INTERFACE: Final = "eth0"
MTU_BYTES: Final = 1500
DEVICE_QUEUE_PACKETS: Final = 4000
"""Packets that may wait in a TUN device while the emulator is busy: 50 ms at 1 Gbit/s."""


class Links(Protocol):
    """All links of one lab."""

    @property
    def name(self) -> str:
        """Short name of the backend."""
        ...

    @property
    def watched(self) -> subprocess.Popen[bytes] | None:
        """A process without which no link works; None if the kernel does it all."""
        ...

    def apply(self, host: Host, link: Duplex) -> None:
        """Make one link as requested; its counters begin anew.

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
