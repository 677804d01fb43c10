"""One end of a measurement, run inside a host of a lab: `peer.py [--realtime] ROLE ARGUMENTS…`.

Roles that serve say READY when they do, and end after one client. Results are one
JSON line. Standard library only, so that it starts fast. Hosts of a lab share the
machine's clock, so that one-way delays can be measured.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import statistics
import struct
import sys
import time

PORT = 5000
CHUNK_BYTES = 1 << 17
BUFFER_BYTES = 1 << 24
SO_RCVBUFFORCE = 33  # linux/socket.h; Python has no name for it
# Longer than any delay of a test: what comes later counts as lost.
SILENCE_S = 1.5
_STAMP = struct.Struct("!Qd")


def hurry() -> None:
    """What is measured is the link, and not how long this process waits for a processor.

    Not where there is only one: the kernel's own threads would wait for this process.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def datagram_sink(first_timeout_s: str = "20") -> None:
    """Receive datagrams until none comes any more: their numbers and one-way delays."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        # All of a test's datagrams fit, for a slow receiver must not look like a lossy link. The
        # larger size is for root of the machine alone.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        with contextlib.suppress(PermissionError):
            one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        one.bind(("0.0.0.0", PORT))
        one.settimeout(float(first_timeout_s))
        print("READY", flush=True)
        got: list[tuple[int, float]] = []
        try:
            while True:
                data = one.recv(65536)
                number, sent_s = _STAMP.unpack_from(data)
                got.append((number, (time.monotonic() - sent_s) * 1e3))
                one.settimeout(SILENCE_S)
        except TimeoutError:
            pass
    delays = sorted(delay for _, delay in got)
    percentiles = statistics.quantiles(delays, n=100) if len(delays) > 1 else [0.0] * 99
    numbers = [number for number, _ in got]
    result = {
        "packets": len(got),
        "distinct": len(set(numbers)),
        "overtaken": sum(a > b for a, b in itertools.pairwise(numbers)),
        "p1_ms": percentiles[0],
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "spread_ms": statistics.pstdev(delays) if delays else 0.0,
    }
    print(json.dumps(result), flush=True)


def datagrams(host: str, count: str, gap_us: str, size_bytes: str = "100") -> None:
    """Send numbered datagrams at a steady pace."""
    padding = bytes(int(size_bytes) - _STAMP.size)
    gap_s, next_s = int(gap_us) / 1e6, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((host, PORT))
        for number in range(int(count)):
            next_s += gap_s
            while (left_s := next_s - time.monotonic()) > 0:
                time.sleep(left_s)
            one.send(_STAMP.pack(number, time.monotonic()) + padding)


def stream_sink() -> None:
    """Receive one TCP stream: bytes, seconds from the first to the last, rate."""
    with socket.create_server(("0.0.0.0", PORT)) as server:
        print("READY", flush=True)
        connection, _ = server.accept()
    buffer = bytearray(1 << 18)
    begin_s, count = time.monotonic(), 0
    with connection:
        while received := connection.recv_into(buffer):
            count += received
    seconds = time.monotonic() - begin_s
    result = {"bytes": count, "seconds": seconds, "mbit_s": count * 8 / seconds / 1e6}
    print(json.dumps(result), flush=True)


def stream(host: str, seconds: str, congestion: str = "cubic") -> None:
    """Send as much as one TCP connection takes."""
    data = os.urandom(CHUNK_BYTES)
    with socket.create_connection((host, PORT), timeout=40.0) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        end_s = time.monotonic() + float(seconds)
        while time.monotonic() < end_s:
            one.sendall(data)


ROLES = {
    "datagram-sink": datagram_sink,
    "datagrams": datagrams,
    "stream-sink": stream_sink,
    "stream": stream,
}

if __name__ == "__main__":
    if sys.argv[1] == "--realtime":
        hurry()
        del sys.argv[1]
    ROLES[sys.argv[1]](*sys.argv[2:])
