"""One connection to the master among several: its receiving thread, and what it leaves behind.

Owns the socket shell of one stream, how long nothing came over it, and the
messages that are not known to have arrived: whoever owns the streams sends
them over another one if this one ends.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Protocol

import msgspec

from wire import blocking
from wire import messages as m
from wire.errors import ConnectionClosed, PeerFault
from wire.streams import SMALL_BYTES, Backlog, Load, Unconfirmed
from wire.tcpinfo import TcpInfo, read_tcp_info, unacknowledged_bytes

BEAT_LOCK_S = 0.05
"""So long a heartbeat waits for a sender; then this stream is full, and others carry the beat."""


class StreamOwner(Protocol):
    """What a stream needs of whoever made it."""

    def received(self, stream: Stream, message: m.Message) -> None:
        """A message came; called on the stream's thread."""

    def ended(self, stream: Stream, reason: str) -> None:
        """Nothing more comes; called once, as the last thing of the stream's thread."""


class Stream:
    """A connection past its handshake. Any thread may send."""

    def __init__(
        self, number: int, connection: blocking.BlockingConnection, interval_s: float
    ) -> None:
        self.number = number
        self.connection = connection
        self.silence_s = 0.0
        self._interval_s = interval_s
        self._heard: int | None = None
        self._counted = TcpInfo(0.0, 0, 0)
        # Held while a message is written, so that the log has the order of the wire.
        self._writing = threading.Lock()
        # Held for a moment: whoever receives must not wait for whoever writes.
        self._lock = threading.Lock()
        self._open = True
        self._unconfirmed: Unconfirmed[m.Message] = Unconfirmed()
        self._backlog = Backlog()
        self._thread: threading.Thread | None = None

    def start(self, owner: StreamOwner) -> None:
        """Receive on a thread of its own."""
        self._thread = threading.Thread(
            target=self._run, args=(owner,), name=f"stream-{self.number}", daemon=True
        )
        self._thread.start()

    def send(self, message: m.Message) -> bool:
        """Send one message; False if this stream has ended, and nobody answers for the message.

        If it ends in the middle, the message is among those that `leave` returns.
        """
        with self._writing:
            with self._lock:
                if not self._open:
                    return False
                fits = self._unconfirmed.sent(message)
                self._backlog.sent(SMALL_BYTES)
            if not fits:
                self.close("too many messages wait for the master's confirmation")
            self._try(message)
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
        """End it and wake its thread."""
        self.connection.shutdown(reason)

    @property
    def alive(self) -> bool:
        """Whether its thread has been started and runs."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the end of its thread."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # --- inside ---------------------------------------------------------------------------

    def _waiting(self) -> int:
        return unacknowledged_bytes(self.connection.socket)

    def _try(self, message: m.Message) -> None:
        # The receiving thread sees the end, too, and reports it.
        with contextlib.suppress(ConnectionClosed):
            self.connection.send(message)

    def _run(self, owner: StreamOwner) -> None:
        reason = "a bug of this worker ended it; see the traceback"
        try:
            self._receive_all(owner)
        except (ConnectionClosed, PeerFault) as end:
            reason = end.reason
        finally:
            owner.ended(self, reason)

    def _receive_all(self, owner: StreamOwner) -> None:
        """Pass on what comes until the connection ends.

        Silence is counted in waits that ended empty-handed, not by the clock: after a
        stop of this process, what the master sent meanwhile is read first.
        """
        pending_bytes = 0
        while True:
            message = self.connection.receive(timeout_s=self._interval_s)
            # A large image on a slow link is a sign of life before it is complete.
            moved = message is not None or self.connection.pending_bytes != pending_bytes
            pending_bytes = self.connection.pending_bytes
            self.silence_s = 0.0 if moved else self.silence_s + self._interval_s
            if isinstance(message, m.HeartbeatAck):
                self._heard = message.seq
                with self._lock:
                    self._unconfirmed.confirm(message.seq)
            if message is not None:
                owner.received(self, message)
