"""TUN devices: a network interface on one side, a file of IP packets on the other."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from netem.errors import MissingFeature

DEVICE: Final = "/dev/net/tun"
# Source: linux/if_tun.h
_TUNSETIFF: Final = 0x4004_54CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000


def open_tun(interface: str) -> int:
    """A new TUN device in this network namespace; the interface lives as long as the file.

    No offload is asked for: the kernel completes every checksum and cuts every
    segment before it hands a packet over, and checks what comes back.

    Raises:
        MissingFeature: there is no such device here, or this user may not open it.
    """
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as problem:
        raise MissingFeature(
            "tun",
            f"{DEVICE} can't be opened ({problem.strerror}): load the module with `modprobe tun`; "
            f"in a container pass --device {DEVICE}; a user needs `chmod 666 {DEVICE}`",
        ) from problem
    try:
        request = struct.pack("16sH22x", interface.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError as problem:
        os.close(fd)
        raise MissingFeature(
            "tun", f"no TUN device {interface} could be made: {problem.strerror}"
        ) from problem
    return fd


def dropped_by_device(interface: str) -> int:
    """Packets that the kernel could not queue for whoever reads the device; in this namespace."""
    lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
    (counts,) = (line.split(":")[1] for line in lines if line.strip().startswith(f"{interface}:"))
    # Eight columns of what arrived, then bytes, packets, errors and drops of what was sent.
    return int(counts.split()[11])
