"""TCP options of the client's connections: what keeps them going on a bad link.

The same as `wire.options` sets between master and workers; the client imports nothing of
ours, so that it can be installed alone. Without them a connection that lost a few segments
in a row is silent for 1, 2, 4 … up to 120 s.
"""

from __future__ import annotations

import contextlib
import socket
import sys

USER_TIMEOUT_MS = 30_000
"""A server that acknowledges nothing for so long is gone."""
RTO_MIN_US = 60_000
RTO_MAX_MS = 1_000
"""Shortest and longest wait before a segment is repeated (Linux 6.13 and 6.15): the kernel's are
200 ms, which is long on a network of one building, and 120 s. A longer round trip is added to
the first."""
# Python's `socket` does not know these (linux/tcp.h).
_TCP_THIN_LINEAR_TIMEOUTS = 16
_TCP_RTO_MAX_MS = 44
_TCP_RTO_MIN_US = 45

Option = tuple[int, int, int] | tuple[int, int, bytes]


def options() -> list[Option]:
    """Those of our options that this kernel takes."""
    if sys.platform != "linux":
        return []
    tcp = socket.IPPROTO_TCP
    wanted: list[Option] = [
        (tcp, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
        (tcp, _TCP_THIN_LINEAR_TIMEOUTS, 1),
        (tcp, _TCP_RTO_MIN_US, RTO_MIN_US),
        (tcp, _TCP_RTO_MAX_MS, RTO_MAX_MS),
        (tcp, socket.TCP_CONGESTION, b"bbr"),
    ]
    taken: list[Option] = []
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        for option in wanted:
            with contextlib.suppress(OSError):
                probe.setsockopt(*option)
                taken.append(option)
    return taken
