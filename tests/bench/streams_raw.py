"""One end of bulk TCP between two hosts of a star: what `streams_link` compares Lookout with.

    python -m tests.bench.streams_raw pour CONGESTION
    python -m tests.bench.streams_raw receive ADDRESS STREAMS ROUNDS SECONDS

`pour` serves frames over every connection as fast as TCP takes them, until it is ended, and
says "listening" first. `receive` opens the connections, says "open" when all stand, and prints
the Mbit/s of each round as JSON.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from typing import Final

from tests.netem_root.star import IMAGE_BYTES

PORT: Final = 7000
WARM_UP_S: Final = 2.0
OPEN_TIMEOUT_S: Final = 80.0
"""For all connections together."""


def pour(congestion: str) -> None:
    """In the master's place."""
    listener = socket.create_server(("0.0.0.0", PORT), backlog=64)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    listener.setblocking(False)
    print("listening", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    piece = memoryview(bytes(IMAGE_BYTES))
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            try:
                if key.fileobj is listener:
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(sock, selectors.EVENT_WRITE)
                else:
                    key.fileobj.send(piece)
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(key.fileobj)


def receive(address: str, streams: str, rounds: str, seconds: str) -> None:
    """In the worker's place."""
    selector, deadline = selectors.DefaultSelector(), time.monotonic() + OPEN_TIMEOUT_S
    for _ in range(int(streams)):
        sock = _connected(address, deadline)
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
    print("open", flush=True)
    buffer = bytearray(2**18)

    def count(round_s: float) -> int:
        end, got = time.monotonic() + round_s, 0
        while (left_s := end - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    got += key.fileobj.recv_into(buffer)
                except OSError:
                    selector.unregister(key.fileobj)
        return got

    count(WARM_UP_S)
    round_s = float(seconds)
    print(json.dumps([count(round_s) * 8 / round_s / 1e6 for _ in range(int(rounds))]), flush=True)


def _connected(address: str, deadline: float) -> socket.socket:
    """A connection of which both ends know: the server has sent its first byte."""
    while time.monotonic() < deadline:
        try:
            sock = socket.create_connection((address, PORT), timeout=5.0)
            if sock.recv(1):
                return sock
        except OSError:
            continue
    raise TimeoutError(f"no connection within {OPEN_TIMEOUT_S:g} s")


if __name__ == "__main__":
    {"pour": pour, "receive": receive}[sys.argv[1]](*sys.argv[2:])
