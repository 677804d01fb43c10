"""Two hosts on one wire: namespaces joined by a veth pair, and what tests ask of them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from pyroute2 import IPRoute

NEAR_IP: Final = "10.77.0.1"
FAR_IP: Final = "10.77.0.2"
NEAR_MAC: Final = "02:00:00:00:00:01"
FAR_MAC: Final = "02:00:00:00:00:02"
_TIMEOUT_S: Final = 20.0
_CHANGES: Final = re.compile("STATS|CACHEINFO|CARRIER|OPERSTATE|PROTO_DOWN|AF_SPEC|REFCNT")
# From linux/ethtool.h and linux/sockios.h.
_SIOCETHTOOL: Final = 0x8946
_GET_FEATURE: Final = {"tso": 0x1E, "gso": 0x23, "gro": 0x2B}


def run(*argv: str, check: bool = True) -> str:
    """Output of a command that must succeed unless `check` is False."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


class Pair:
    """`near0` here, `far0` in the namespace `far`, and a wire between them.

    Here is the guest's own first namespace: each process that a test starts costs
    tens of milliseconds in this kernel, and `ip netns exec` is one more.
    """

    far = "far"
    link = "near0"

    def __enter__(self) -> Self:
        run("ip", "netns", "add", self.far)
        run(
            *("ip", "link", "add", self.link, "type", "veth"),
            *("peer", "name", "far0", "netns", self.far),
        )
        run("ip", "addr", "add", f"{NEAR_IP}/24", "dev", self.link)
        run("ip", "link", "set", "dev", self.link, "address", NEAR_MAC)
        run("ip", "-n", self.far, "link", "set", "dev", "far0", "address", FAR_MAC)
        run("ip", "link", "set", "dev", self.link, "up")
        run("ip", "-n", self.far, "addr", "add", f"{FAR_IP}/24", "dev", "far0")
        run("ip", "-n", self.far, "link", "set", "dev", "far0", "up")
        # A lost ARP request costs a second of whatever is sent, which would look like loss as well.
        known = ("nud", "permanent", "dev")
        run("ip", "neigh", "replace", FAR_IP, "lladdr", FAR_MAC, *known, self.link)
        run("ip", "-n", self.far, "neigh", "replace", NEAR_IP, "lladdr", NEAR_MAC, *known, "far0")
        # Packets, not the 64 kB that a veth passes on: as on a wire.
        in_far = ("ip", "netns", "exec", self.far)
        run(*in_far, "ethtool", "-K", "far0", "tso", "off", "gso", "off", "gro", "off")
        run("ip", "-n", self.far, "link", "set", "dev", "far0", "gso_max_segs", "1")
        return self

    def __exit__(self, *_: object) -> None:
        run("ip", "netns", "del", self.far)

    def snapshot(self) -> dict[str, object]:
        """All that netem may change at the near end, without counters and clocks."""
        with IPRoute() as ip:
            links = [_lasting(m) for m in ip.get_links()]
            qdiscs = [_lasting(m) for m in ip.get_qdiscs()]
        return {"links": links, "qdiscs": qdiscs, "offload": offload(self.link)}


def _lasting(message: Any) -> dict[str, object]:
    """Fields of a netlink message that stay the same while nobody changes anything."""
    attributes = {n: repr(v) for n, v in message["attrs"] if not _CHANGES.search(n)}
    return {
        "index": message.get("index"),
        "handle": message.get("handle"),
        "parent": message.get("parent"),
        **attributes,
    }


def offload(interface: str) -> dict[str, bool]:
    """Features of an interface that join packets, asked of the kernel by ioctl."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for name, number in _GET_FEATURE.items():
            value = ctypes.create_string_buffer(struct.pack("II", number, 0), 8)
            request = struct.pack("16sP8x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
            found[name] = struct.unpack("II", value.raw)[1] != 0
    return found


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread's sockets are made in namespace `name`; they stay there."""
    paths = Path("/proc/thread-self/ns/net"), Path("/run/netns", name)
    with paths[0].open() as home, paths[1].open() as there:
        os_setns(there.fileno())
        try:
            yield
        finally:
            os_setns(home.fileno())


def os_setns(fd: int) -> None:
    """`setns(2)` for the network; Python has it from 3.12 on."""
    clone_newnet = 0x4000_0000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, clone_newnet) != 0:
        raise OSError(ctypes.get_errno(), "setns")
