"""The one place that sets socket options.

They decide how a connection behaves on a bad link. Measured with `tc netem`
(100 Mbit/s, 5 ms each way, 10 % loss both ways): one CUBIC stream carries
1.4 Mbit/s, one BBR stream 77. An option that the kernel does not have or does
not grant is left out; what was set is returned for the log.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Protocol

KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 4
USER_TIMEOUT_MS = 30_000
"""A peer that acknowledges nothing for so long is gone, however many retransmits are due."""
CONGESTION = b"bbr"
RTO_MAX_MS = 2_000
"""TCP doubles its wait after each lost repeat, up to two minutes by default. From Linux 6.15
on that has a bound of our choice: no link here has a longer round trip, and the failure
detector's patience is 10 s."""
HASTY_RTO_MIN_US = 60_000
HASTY_RTO_MAX_MS = 1_000
"""For answers that people wait for: the kernel's shortest wait is 200 ms (Linux 6.13 on)."""
# Python's `socket` does not know these (linux/tcp.h).
_TCP_THIN_LINEAR_TIMEOUTS = 16
_TCP_RTO_MAX_MS = 44
_TCP_RTO_MIN_US = 45


class OptionSocket(Protocol):
    """What `socket.socket` and the transports' socket objects have in common."""

    @property
    def family(self) -> int: ...

    def setsockopt(self, level: int, optname: int, value: int | bytes, /) -> None: ...


def tcp_options() -> list[tuple[str, int, int, int | bytes]]:
    """Name, level, option and value, as far as this platform knows them."""
    wanted: list[tuple[str, int, str, int | bytes]] = [
        ("TCP_NODELAY", socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        ("SO_KEEPALIVE", socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        ("TCP_KEEPIDLE", socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
        ("TCP_CONGESTION", socket.IPPROTO_TCP, "TCP_CONGESTION", CONGESTION),
    ]
    found = [
        (name, level, getattr(socket, attribute), value)
        for name, level, attribute, value in wanted
        if hasattr(socket, attribute)
    ]
    # Without doubling, while few segments are under way, as with heartbeats.
    thin = ("TCP_THIN_LINEAR_TIMEOUTS", socket.IPPROTO_TCP, _TCP_THIN_LINEAR_TIMEOUTS, 1)
    rto = ("TCP_RTO_MAX_MS", socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, RTO_MAX_MS)
    return [*found, thin, rto] if sys.platform == "linux" else found


def wake_at(sock: OptionSocket, waiting_bytes: int) -> None:
    """Let a wait for input end only when so many bytes are there, or the end; 1 is the default.

    Linux alone heeds it, and for TCP alone.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, waiting_bytes)


def hasty_options() -> list[tuple[str, int, int, int | bytes]]:
    """`tcp_options`, and segments are repeated earlier."""
    if sys.platform != "linux":
        return tcp_options()
    kept = [option for option in tcp_options() if option[0] != "TCP_RTO_MAX_MS"]
    tcp = socket.IPPROTO_TCP
    return [
        *kept,
        ("TCP_RTO_MIN_US", tcp, _TCP_RTO_MIN_US, HASTY_RTO_MIN_US),
        ("TCP_RTO_MAX_MS", tcp, _TCP_RTO_MAX_MS, HASTY_RTO_MAX_MS),
    ]


def apply_options(sock: OptionSocket, *, hasty: bool = False) -> dict[str, int | str]:
    """Set what the design wants on a connected or listening socket; say what took hold."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return {}
    taken: dict[str, int | str] = {}
    for name, level, option, value in hasty_options() if hasty else tcp_options():
        try:
            sock.setsockopt(level, option, value)
        except OSError:
            continue
        taken[name] = value.decode() if isinstance(value, bytes) else value
    return taken
