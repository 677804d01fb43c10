"""A TCP relay that can freeze or cut each of its connections: a link whose streams fare apart.

A frozen connection stays open and carries nothing, as one does whose segments get lost. What
was read before is kept and goes on when it thaws.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self

CHUNK_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)


class RelayedConnection:
    """One connection through the relay, numbered in order of arrival."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.bytes_down = 0
        self._pair = (near, far)
        self._flowing = threading.Event()
        self._flowing.set()
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def freeze(self) -> None:
        """Carry nothing from now on, in either direction."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Go on with what waited."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset both ends."""
        for sock in self._pair:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.shutdown(socket.SHUT_RD)
                sock.close()
        self._flowing.set()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._flowing.wait()
                target.sendall(data)
                if source is self._pair[1]:
                    self.bytes_down += len(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class Relay:
    """Listens on a free port of the loopback and calls `port` for each connection."""

    def __init__(self, port: int) -> None:
        self.connections: list[RelayedConnection] = []
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """What to give to `worker join`."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self.connections.append(RelayedConnection(near, far))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self.connections:
            connection.cut()
