"""One connection in asyncio: the transport around a `Session`.

Owns reading, writing, deadlines and the end of one connection. Promises that
`on_closed` is called exactly once for a connection that was open, never from
within `send`, `close` or `abort`; that no message is delivered after it; and
that the peer is told of its fault where it still listens. Leaves listening and
admission to `wire.aio`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import cast

from wire.errors import ConnectionClosed, LocalFault, PeerFault
from wire.limits import FrameClock, Limits
from wire.messages import Hello, Message, ProtocolFault, Welcome
from wire.options import apply_options
from wire.session import Session
from wire.splice import Piece

log = logging.getLogger("lookout.wire")

INBOX_MESSAGES_MAX = 1024
"""Messages kept for `receive` before reading pauses."""
OUTBOX_BYTES_MAX = 2**18
"""Frames gathered within one turn of the loop before they are written at once."""
_DISCARD = memoryview(bytearray(64 * 2**10))
"""Where the input of ended connections goes, of all of them: nobody reads it."""


class ConnectionState(Enum):
    """The life of a connection."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


OnMessage = Callable[["Connection", Message], None]
OnClosed = Callable[["Connection", str, PeerFault | None], None]


class Owner:
    """Who made the connection and hears of its stages; the default hears nothing."""

    def made(self, connection: Connection) -> None:
        """The transport stands; nothing is known of the peer."""

    def opened(self, connection: Connection) -> None:
        """The handshake is done."""

    def ended(self, connection: Connection, reason: str, fault: PeerFault | None) -> None:
        """No more messages come. The transport may still deliver the last frame."""

    def lost(self, connection: Connection) -> None:
        """The transport is gone."""


class Connection(asyncio.BufferedProtocol):
    """A peer. Set `on_message` and `on_closed`, or call `receive`.

    While `on_message` is not set, messages wait for `receive`, up to
    `INBOX_MESSAGES_MAX`; then reading pauses.
    """

    def __init__(self, session: Session, owner: Owner, limits: Limits, address: str) -> None:
        self.address = address
        self.socket_options: dict[str, int | str] = {}
        self.on_closed: OnClosed | None = None
        self._on_message: OnMessage | None = None
        self._session = session
        self._owner = owner
        self._limits = limits
        self._state = ConnectionState.HANDSHAKE
        self._reason = ""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._frame_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._frame_clock = FrameClock()
        self._discarding = False
        self._inbox: deque[Message] = deque()
        self._inbox_waiter: asyncio.Future[None] | None = None
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._outbox: list[Piece] = []
        self._outbox_bytes = 0
        self._outbox_due = False
        self._write_paused = False

    # --- what a user of the connection calls ---------------------------------------------

    @property
    def hello(self) -> Hello:
        """Who the client is; raises `LocalFault` before it said so."""
        if self._session.hello is None:
            raise LocalFault("the peer has not said who it is")
        return self._session.hello

    @property
    def welcome(self) -> Welcome:
        """The terms of admission; raises `LocalFault` before the handshake is done."""
        if self._session.welcome is None:
            raise LocalFault("the handshake is not done")
        return self._session.welcome

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands."""
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether messages flow."""
        return self._state is ConnectionState.OPEN

    @property
    def closed_reason(self) -> str:
        """Why it ended; empty until then."""
        return self._reason

    @property
    def write_buffer_bytes(self) -> int:
        """Bytes sent that the kernel has not taken yet."""
        if self._transport is None:
            return 0
        return self._outbox_bytes + self._transport.get_write_buffer_size()

    @property
    def socket(self) -> socket.socket | None:
        """The transport's socket, to read counters from; never to read or write bytes."""
        sock = self._transport.get_extra_info("socket") if self._transport else None
        return cast("socket.socket | None", sock)

    @property
    def on_message(self) -> OnMessage | None:
        """Called with each message, in order."""
        return self._on_message

    @on_message.setter
    def on_message(self, callback: OnMessage | None) -> None:
        self._on_message = callback
        if callback is not None and self._inbox:
            waiting = list(self._inbox)
            self._inbox.clear()
            self.resume_reading()
            self._deliver(waiting)

    def send(self, message: Message, gather_s: float = 0.0) -> bool:
        """Queue one message; False if the connection has ended.

        What is queued within one turn of the loop goes out in one write at its end: a
        write costs about 10 us and wakes the peer (measured: three of them a job took
        a quarter of the core's time). With `gather_s` it may wait so long for others,
        which take it along; their order stays. Cuts the connection (`slow_reader`) when
        more than `write_bytes_max` wait.

        Raises:
            LocalFault: this end may not say that, or it is too large.
        """
        if self._state is not ConnectionState.OPEN:
            return False
        data = self._session.send_pieces(message)
        if gather_s <= 0.0 and not self._outbox_due:
            self._outbox_due = True
            self._loop.call_soon(self._write_outbox)
        elif not self._outbox:
            self._loop.call_later(gather_s, self._write_outbox)
        self._outbox += data
        self._outbox_bytes += sum(map(len, data))
        if self._outbox_bytes >= OUTBOX_BYTES_MAX:
            self._write_outbox()
        return self._state is ConnectionState.OPEN

    async def drain(self) -> None:
        """Wait until little is left to write.

        Raises:
            ConnectionClosed: it ended first.
        """
        self._write_outbox()
        if self._write_paused and self.is_open:
            waiter = self._loop.create_future()
            self._drain_waiters.append(waiter)
            await waiter
        self._require_open()

    async def receive(self) -> Message:
        """The next message, for users that set no `on_message`; one caller at a time.

        Raises:
            ConnectionClosed: it ended, and nothing is left to read.
        """
        while not self._inbox:
            self._require_open()
            self._inbox_waiter = self._loop.create_future()
            await self._inbox_waiter
        message = self._inbox.popleft()
        if len(self._inbox) == INBOX_MESSAGES_MAX // 2:
            self.resume_reading()
        return message

    def close(self, reason: str) -> None:
        """End it: what was sent is delivered if the peer reads it within `linger_s`."""
        self._end(reason, None, soon=True)

    def abort(self, reason: str = "aborted") -> None:
        """End it now; what was not written is dropped."""
        self._end(reason, None, soon=True)
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Let the peer wait: bytes stay in its kernel and ours."""
        if self._transport is not None and self.is_open:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    def reject(self, code: str, reason: str) -> None:
        """End it as the peer's fault, and say so to the peer; for rules above the wire."""
        self._fail(PeerFault(code, reason), soon=True)

    def evict(self, fault: PeerFault) -> None:
        """End it as the peer's fault, at once and without a word."""
        self._end(f"{fault}", fault, soon=True)
        if self._transport is not None:
            self._transport.abort()

    def peername(self) -> object:
        """What the transport knows of the other end."""
        return self._transport.get_extra_info("peername") if self._transport else None

    def who(self) -> str:
        """For the log: what the peer says of itself, quoted, since it may say anything."""
        hello = self._session.hello
        return "" if hello is None else f" role={hello.role} name={hello.name!r}"

    # --- what the transport calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set options, start the clock of the handshake, say the first word."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_high_bytes)
        if self.socket is not None:
            self.socket_options = apply_options(self.socket)
        self._handshake_timer = self._loop.call_later(
            self._limits.handshake_timeout_s, self._handshake_expired
        )
        self._owner.made(self)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop writes what it reads."""
        if self._discarding:
            return _DISCARD
        return self._session.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read: answer the handshake, deliver messages, notice faults."""
        if self._discarding or self._state is ConnectionState.CLOSED:
            return
        messages: list[Message] = []
        # The session keeps the fault as well: it may come with messages ahead of it.
        with contextlib.suppress(PeerFault):
            messages = self._session.buffer_updated(nbytes)
        fault = self._session.fault
        if self._state is ConnectionState.HANDSHAKE:
            self._progress()
        self._deliver(messages)
        if fault is not None:
            self._fail(fault)
        elif self._state is not ConnectionState.CLOSING:
            self._watch_frame()

    def eof_received(self) -> bool:
        """The peer ended its side."""
        fault = self._session.truncation()
        self._end(f"{fault}" if fault else "the peer closed the connection", fault)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        why = f"the connection broke: {exc}" if exc else "the connection was closed"
        self._end(why, None)
        self._state = ConnectionState.CLOSED
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._owner.lost(self)

    def pause_writing(self) -> None:
        """The write buffer is over its mark."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The write buffer is under its mark again."""
        self._write_paused = False
        self._wake(self._drain_waiters)

    # --- inside -----------------------------------------------------------------------------

    def _progress(self) -> None:
        """Send the handshake's answers, and act on where they lead."""
        self._flush()
        rejection = self._session.handshake.rejection
        if self._session.is_open:
            self._state = ConnectionState.OPEN
            self._cancel_handshake_timer()
            self._owner.opened(self)
        elif self._session.is_rejected and rejection and self._session.fault is None:
            fault = PeerFault(rejection.code, rejection.reason)
            self._end(f"{fault}", fault)

    def _write_outbox(self) -> None:
        """Hand everything queued to the transport: at the end of a turn, or before an end."""
        self._outbox_due = False
        if not self._outbox:
            return
        outbox, self._outbox, self._outbox_bytes = self._outbox, [], 0
        transport = self._transport
        if transport is None or self._state is ConnectionState.CLOSED:
            return
        if len(outbox) == 1:
            transport.write(outbox[0])
        else:
            transport.writelines(outbox)
        if transport.get_write_buffer_size() > self._limits.write_bytes_max:
            self._cut_slow_reader()

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._session.data_to_send():
            self._transport.write(data)

    def _deliver(self, messages: list[Message]) -> None:
        for message in messages:
            if self._state is not ConnectionState.OPEN:
                return
            if type(message) is ProtocolFault:
                self._end(f"the peer reported a fault: {message.code!r}: {message.reason!r}", None)
            elif self._on_message is None:
                self._keep(message)
            else:
                self._call(self._on_message, message)

    def _call(self, on_message: OnMessage, message: Message) -> None:
        """The edge: a bug of ours in handling one message costs this connection only."""
        try:
            on_message(self, message)
        except Exception:
            log.exception("handling %s from %s failed", type(message).__name__, self.address)
            self.abort("internal error")

    def _keep(self, message: Message) -> None:
        self._inbox.append(message)
        if len(self._inbox) >= INBOX_MESSAGES_MAX:
            self.pause_reading()
        self._wake_receiver()

    def _wake_receiver(self) -> None:
        if self._inbox_waiter is not None and not self._inbox_waiter.done():
            self._inbox_waiter.set_result(None)

    def _wake(self, waiters: list[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        waiters.clear()

    def _require_open(self) -> None:
        if self._state is not ConnectionState.OPEN:
            raise ConnectionClosed(self._reason or "the handshake is not done")

    def _fail(self, fault: PeerFault, soon: bool = False) -> None:
        if self._state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        assert self._transport is not None
        self._write_outbox()
        if not self._session.is_rejected:
            self._transport.write(self._session.farewell(fault))
        self._end(f"{fault}", fault, soon)

    def _cut_slow_reader(self) -> None:
        if self._state is not ConnectionState.OPEN:
            return
        waiting_bytes = self.write_buffer_bytes
        fault = PeerFault(
            "slow_reader",
            f"{waiting_bytes} bytes wait for the peer to read; "
            f"at most {self._limits.write_bytes_max} are kept",
        )
        self.evict(fault)

    def _end(self, reason: str, fault: PeerFault | None, soon: bool = False) -> None:
        """Stop once: no more messages; tell owner and user; let the last frame out."""
        if self._state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        was_open = self._state is ConnectionState.OPEN
        # Closing first, so that an outbox over the limit can't end it a second time.
        self._state, self._reason = ConnectionState.CLOSING, reason
        self._write_outbox()
        self._cancel_handshake_timer()
        if self._frame_timer is not None:
            self._frame_timer.cancel()
        self._linger()
        self._wake_receiver()
        self._wake(self._drain_waiters)
        if soon:
            self._loop.call_soon(self._tell, was_open, reason, fault)
        else:
            self._tell(was_open, reason, fault)

    def _tell(self, was_open: bool, reason: str, fault: PeerFault | None) -> None:
        self._owner.ended(self, reason, fault)
        if not was_open or self.on_closed is None:
            return
        try:
            self.on_closed(self, reason, fault)
        except Exception:  # the edge: somebody else's code may not stop our own end
            log.exception("handling the end of %s failed", self.address)

    def _linger(self) -> None:
        """Close in a way that lets the peer read our last frame.

        Closing a socket with unread input makes the kernel send a reset, which
        discards what the peer has not read yet. So: end our side, throw away
        what comes, and cut after `linger_s`.
        """
        assert self._transport is not None
        self._discarding = True
        self._linger_timer = self._loop.call_later(self._limits.linger_s, self._transport.abort)
        if self._transport.is_closing():
            return
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _cancel_handshake_timer(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None

    def _handshake_expired(self) -> None:
        timeout_s = self._limits.handshake_timeout_s
        self._fail(
            PeerFault("handshake_timeout", f"the handshake was not done within {timeout_s:g} s")
        )

    def _watch_frame(self) -> None:
        """One timer a connection, armed while a frame is incomplete: none per frame."""
        session = self._session
        incomplete = self._frame_clock.observe(
            session.pending_bytes, session.frames_received, self._loop.time()
        )
        if incomplete and self._frame_timer is None:
            self._arm_frame_timer(self._limits.frame_timeout_s)

    def _arm_frame_timer(self, delay_s: float) -> None:
        self._frame_timer = self._loop.call_later(delay_s, self._judge_frame)

    def _judge_frame(self) -> None:
        self._frame_timer = None
        since_s = self._frame_clock.since_s
        if since_s is None or not self.is_open:
            return
        frame_bytes = self._session.announced_bytes
        allowed_s = self._limits.frame_allowance_s(frame_bytes)
        left_s = since_s + allowed_s - self._loop.time()
        if left_s > 0:
            self._arm_frame_timer(left_s)
            return
        self._fail(
            PeerFault(
                "frame_timeout",
                f"a frame of {frame_bytes} bytes was not complete after {allowed_s:.0f} s",
            )
        )
