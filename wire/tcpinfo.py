"""What the kernel knows of one TCP connection: round trip, segments sent again, bytes under way."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from dataclasses import dataclass
from typing import Protocol

# Offsets in struct tcp_info (linux/tcp.h); an older kernel's answer ends earlier.
_RTT_OFFSET = 68
_TOTAL_RETRANS_OFFSET = 100
_DATA_SEGS_OUT_OFFSET = 156
_DSACK_DUPS_OFFSET = 216
_INFO_BYTES = 256


class CountedSocket(Protocol):
    """What `socket.socket` and the transports' socket objects have in common."""

    @property
    def family(self) -> int: ...

    def fileno(self) -> int: ...

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """Counters of one connection, from its first segment.

    `segments` holds data, first sendings and repeats; `repeats` are those sent
    again and not reported by the peer (DSACK) as having been there already.
    """

    rtt_ms: float
    segments: int
    repeats: int


def read_tcp_info(sock: CountedSocket | None) -> TcpInfo | None:
    """The kernel's numbers now; None for a Unix socket or one that is gone."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    again = _u32(info, _TOTAL_RETRANS_OFFSET) - _u32(info, _DSACK_DUPS_OFFSET)
    return TcpInfo(
        rtt_ms=_u32(info, _RTT_OFFSET) / 1000.0,
        segments=_u32(info, _DATA_SEGS_OUT_OFFSET),
        repeats=max(0, again),
    )


def unacknowledged_bytes(sock: CountedSocket | None) -> int:
    """Bytes that the kernel took from us and the peer's kernel has not acknowledged."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):
        return 0
    (waiting_bytes,) = struct.unpack("=i", answer)
    return int(waiting_bytes)


def _u32(info: bytes, offset: int) -> int:
    if len(info) < offset + 4:
        return 0
    (value,) = struct.unpack_from("=I", info, offset)
    return int(value)
