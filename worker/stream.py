"""One connection to the master among several, and what it leaves behind.

Owns the socket shell of one stream, how long nothing came over it, and the
messages that are not known to have arrived: whoever owns the streams sends
them over another one if this one ends. Leaves to `worker.receiver` when to read.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Protocol

import msgspec

from wire import blocking
from wire import messages as m
from wire.errors import ConnectionClosed
from wire.streams import SMALL_BYTES, Backlog, Load, Unconfirmed
from wire.tcpinfo import TcpInfo, read_tcp_info, unacknowledged_bytes

BEAT_LOCK_S = 0.05
"""So long a heartbeat waits for a sender; then this stream is full, and others carry the beat."""


class StreamOwner(Protocol):
    """What a stream needs of whoever made it."""

    def received(self, stream: Stream, message: m.Message) -> None:
        """A message came; called on the thread that receives."""

    def ended(self, stream: Stream, reason: str) -> None:
        """Nothing more comes; called once, on a thread of its own."""


class Stream:
    """A connection past its handshake. Any thread may send."""

    def __init__(self, number: int, connection: blocking.BlockingConnection) -> None:
        self.number = number
        self.connection = connection
        self.silence_s = 0.0
        self._moved = True
        self._pending_bytes = 0
        self._heard: int | None = None
        self._counted = TcpInfo(0.0, 0, 0)
        # Held while a message is written, so that the log has the order of the wire.
        self._writing = threading.Lock()
        # Held for a moment: whoever receives must not wait for whoever writes.
        self._lock = threading.Lock()
        self._open = True
        self._unconfirmed: Unconfirmed[m.Message] = Unconfirmed()
        self._backlog = Backlog()

    def send(self, *messages: m.Message) -> bool:
        """Send messages in one write; False if this stream has ended, and nobody answers for them.

        If it ends in the middle, they are among those that `leave` returns.
        """
        with self._writing:
            with self._lock:
                if not self._open:
                    return False
                fits = self._unconfirmed.sent(*messages)
                self._backlog.sent(SMALL_BYTES * len(messages))
            if not fits:
                self.close("too many messages wait for the master's confirmation")
            self._try(*messages)
        return True

    def beat(self, heartbeat: m.Heartbeat) -> None:
        """Send a heartbeat, unless this stream is full: a beat that waits is worth nothing."""
        if not self._writing.acquire(timeout=BEAT_LOCK_S):
            return
        try:
            if self._open and self.connection.is_writable:
                with self._lock:
                    self._unconfirmed.mark(heartbeat.seq)
                self._try(msgspec.structs.replace(heartbeat, heard=self._heard))
        finally:
            self._writing.release()

    def load(self, now: float) -> Load:
        """What `wire.streams.choose` judges by."""
        return Load(self.silence_s, self._backlog.read(self._waiting, now))

    def counted(self) -> tuple[int, int]:
        """Segments sent and segments repeated since the last call."""
        before, info = self._counted, read_tcp_info(self.connection.socket)
        if info is None:
            return 0, 0
        self._counted = info
        return info.segments - before.segments, info.repeats - before.repeats

    def leave(self) -> list[m.Message]:
        """End it; what it may not have delivered."""
        self.connection.shutdown("another stream takes over")
        with self._lock:
            self._open = False
            return self._unconfirmed.take()

    def close(self, reason: str) -> None:
        """End it; the thread that receives is woken by that, and tells it."""
        self.connection.shutdown(reason)

    # --- for the thread that receives -------------------------------------------------------

    def read(self, owner: StreamOwner) -> None:
        """Pass on all that has come; waits for nothing.

        Raises:
            ConnectionClosed: the connection has ended.
            PeerFault: the master broke the protocol, which ended it.
        """
        while (message := self.connection.receive(timeout_s=0.0)) is not None:
            self._moved = True
            self.silence_s = 0.0
            if isinstance(message, m.HeartbeatAck):
                self._heard = message.seq
                with self._lock:
                    self._unconfirmed.confirm(message.seq)
            owner.received(self, message)
        # A large image on a slow link is a sign of life before it is complete.
        if self.connection.pending_bytes != self._pending_bytes:
            self._pending_bytes = self.connection.pending_bytes
            self._moved = True
            self.silence_s = 0.0

    def count_silence(self, seconds: float) -> None:
        """So long have we listened since the last call.

        Silence is counted in waits that ended empty-handed, not by the clock: after a
        stop of this process, what the master sent meanwhile is read first.
        """
        if not self._moved:
            self.silence_s += seconds
        self._moved = False

    # --- inside ---------------------------------------------------------------------------

    def _waiting(self) -> int:
        return unacknowledged_bytes(self.connection.socket)

    def _try(self, *messages: m.Message) -> None:
        # The thread that receives sees the end, too, and reports it.
        with contextlib.suppress(ConnectionClosed):
            self.connection.send(*messages)
