"""The thread that receives over all streams of one membership.

Owns who is listened to, and what counts as silence. One thread and not one for
each stream: on a link that loses packets 16 of them wake for every piece of an
image, and spent more time on handing the interpreter to each other than on
images (docs/netem.md has figures). Leaves what messages mean to the owner.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time

from wire.errors import ConnectionClosed, PeerFault
from worker.stream import Stream, StreamOwner

LOOKS_PER_INTERVAL = 4
"""Silence is looked at so often in each heartbeat interval."""
RINGS_MAX = 64
"""So many calls are taken off the bell at once; what is left rings again."""
BUG = "a bug of this worker ended it; see the traceback"


class Receiver:
    """Passes on what comes over any stream; tells each stream's end once, on its own thread."""

    def __init__(self, owner: StreamOwner, interval_s: float) -> None:
        self._owner = owner
        self._look_s = interval_s / LOOKS_PER_INTERVAL
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._new: list[Stream] = []
        self._finishing = False
        # Of the thread alone, until it has ended:
        self._open: set[Stream] = set()
        self._farewells: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)

    def start(self) -> None:
        """Receive from now on."""
        self._thread.start()

    def add(self, stream: Stream) -> None:
        """Listen to one more stream; after `finish` it is closed instead."""
        with self._lock:
            if not self._finishing:
                self._new.append(stream)
                self._rope.send(b"!")
                return
        stream.connection.close()

    def finish(self) -> None:
        """Return when every stream has ended and its end was told. Somebody has to close them."""
        with self._lock:
            self._finishing = True
            self._rope.send(b"!")
        self._thread.join()
        for farewell in self._farewells:
            farewell.join()
        self._selector.close()
        self._bell.close()
        self._rope.close()

    # --- on the thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._receive_all()
        finally:
            for stream in self._open.copy():
                self._end(stream, BUG)

    def _receive_all(self) -> None:
        look_at = time.monotonic() + self._look_s
        while self._open or not self._is_done():
            for key, _ in self._selector.select(max(0.0, look_at - time.monotonic())):
                if key.data is None:
                    self._take_new()
                else:
                    self._read(key.data)
            if time.monotonic() >= look_at:
                self._look()
                # Not from when it was due: after a stop of this process no silence is made up for.
                look_at = time.monotonic() + self._look_s

    def _is_done(self) -> bool:
        with self._lock:
            return self._finishing and not self._new

    def _take_new(self) -> None:
        self._bell.recv(RINGS_MAX)
        with self._lock:
            new, self._new = self._new, []
        for stream in new:
            self._open.add(stream)
            self._selector.register(stream.connection.socket, selectors.EVENT_READ, stream)
            self._read(stream)  # the handshake may have brought more than its own end

    def _read(self, stream: Stream) -> None:
        try:
            stream.read(self._owner)
        except (ConnectionClosed, PeerFault) as end:
            self._end(stream, end.reason)

    def _look(self) -> None:
        """Count the silence: after a last look for pieces that are too small to wake us."""
        for stream in self._open.copy():
            self._read(stream)
            stream.count_silence(self._look_s)

    def _end(self, stream: Stream, reason: str) -> None:
        self._open.discard(stream)
        self._selector.unregister(stream.connection.socket)
        # What it leaves is sent over others, which may be full: the rest is received meanwhile.
        farewell = threading.Thread(
            target=self._owner.ended,
            args=(stream, reason),
            name=f"end-{stream.number}",
            daemon=True,  # a send to a frozen link must not keep the process from ending
        )
        self._farewells = [thread for thread in self._farewells if thread.is_alive()]
        self._farewells.append(farewell)
        farewell.start()
