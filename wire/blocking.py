"""The blocking shell, for workers and web processes that use threads.

Owns one socket. Any thread may send; one thread receives; any thread may call
`shutdown` or `close` to wake it. Every wait has a timeout, and the socket is
non-blocking below them, so that one thread's timeout is not another's.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import threading
import time
from collections import deque

from wire.address import Address, TcpAddress, UnixAddress, parse_address
from wire.errors import ConnectionClosed, EnvironmentFault, PeerFault
from wire.framing import FRAME_BYTES_MAX
from wire.handshake import ClientHandshake
from wire.messages import Hello, Message, ProtocolFault, Welcome
from wire.options import apply_options, wake_at
from wire.session import Session

WAKE_BYTES_MAX = 2**15
"""Of an image that comes in segments so much is waited for at once: a thread that wakes for
each of its 70 segments takes longer than the link. Well below any receive buffer."""


class BlockingConnection:
    """A connection to the master, past its handshake. Made by `connect`."""

    def __init__(
        self,
        sock: socket.socket,
        session: Session,
        address: Address,
        send_timeout_s: float,
    ) -> None:
        self.address = str(address)
        self.socket_options = apply_options(sock)
        self.send_timeout_s = send_timeout_s
        self._sock = sock
        self._sock.setblocking(False)
        self._session = session
        self._inbox: deque[Message] = deque()
        self._send_lock = threading.Lock()
        self._receive_lock = threading.Lock()
        self._reason: str | None = None
        self._wakes_at = 1

    @property
    def welcome(self) -> Welcome:
        """The terms of admission."""
        welcome = self._session.welcome
        assert welcome is not None, "connect() returns after Welcome"
        return welcome

    @property
    def is_open(self) -> bool:
        """Whether nothing has ended it yet, as far as this end knows."""
        return self._reason is None

    @property
    def is_writable(self) -> bool:
        """Whether a short message would go to the kernel at once."""
        poll = select.poll()
        try:
            poll.register(self._sock, select.POLLOUT)
        except ValueError:
            return False  # closed meanwhile
        return bool(poll.poll(0))

    @property
    def socket(self) -> socket.socket:
        """The socket, to read counters from; never to read or write bytes."""
        return self._sock

    @property
    def pending_bytes(self) -> int:
        """Bytes held of a frame that is not complete: they show a peer that is slow, not dead."""
        return self._session.pending_bytes

    def send(self, *messages: Message) -> None:
        """Send messages in one write; returns once the kernel has them. Safe from any thread.

        Raises:
            ConnectionClosed: it ended, or the peer read nothing for `send_timeout_s`.
            LocalFault: this end may not say one of them, or it is too large; none is sent.
        """
        data = bytearray().join(map(self._session.send, messages))
        with self._send_lock:
            self._write(data, time.monotonic() + self.send_timeout_s)

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None if none came within `timeout_s`.

        Raises:
            ConnectionClosed: it ended; the reason says how.
            PeerFault: the master broke the protocol; the connection is closed.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._receive_lock:
            while not self._inbox:
                if self._session.fault is not None:
                    raise self._session.fault
                if not self._fill(deadline_s):
                    return None
            message = self._inbox.popleft()
        if isinstance(message, ProtocolFault):
            raise self._ended(f"the master reported a fault: {message.code}: {message.reason}")
        return message

    def shutdown(self, reason: str = "shut down by this end") -> None:
        """End it and wake whoever waits; from any thread. What was sent is delivered."""
        if self._reason is None:
            self._reason = reason
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it and give the socket back, once no other thread is inside a call."""
        self.shutdown("closed by this end")
        with self._send_lock, self._receive_lock:
            self._sock.close()

    def __enter__(self) -> BlockingConnection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- inside ---------------------------------------------------------------------------

    def _handshake(self, deadline_s: float) -> None:
        """Answer until the session is open; raises what `connect` raises."""
        while True:
            for data in self._session.data_to_send():
                self._write(data, deadline_s)
            if self._session.is_open:
                return
            if self._session.fault is not None:
                raise self._session.fault
            if not self._fill(deadline_s):
                raise PeerFault(
                    "handshake_timeout", f"{self.address} did not finish the handshake in time"
                )

    def _fill(self, deadline_s: float | None) -> bool:
        """Read once; False if nothing came in time."""
        buffer = self._session.get_buffer()
        in_time = True
        while (n := self._read(buffer)) is None:
            if not in_time:
                return False
            self._wake_at(min(max(1, self._session.missing_bytes), WAKE_BYTES_MAX))
            # In time or not: less than was waited for is to be read, too.
            in_time = self._wait(select.POLLIN, deadline_s)
        if n == 0:
            raise self._ended("the master closed the connection")
        try:
            self._inbox += self._session.buffer_updated(n)
        finally:
            if self._session.fault is not None:
                self._accuse(self._session.fault)
        return True

    def _read(self, buffer: memoryview) -> int | None:
        """How many bytes there were; None if there are none yet, 0 at the end."""
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._ended(f"the connection broke: {error}") from error

    def _wake_at(self, waiting_bytes: int) -> None:
        if waiting_bytes != self._wakes_at:
            self._wakes_at = waiting_bytes
            wake_at(self._sock, waiting_bytes)

    def _accuse(self, fault: PeerFault) -> None:
        """Tell the master what it did wrong, if that can be done at once, and end."""
        if not self._session.is_rejected and self._send_lock.acquire(blocking=False):
            with contextlib.suppress(OSError):
                self._sock.send(self._session.farewell(fault))
            self._send_lock.release()
        self.shutdown(f"{fault}")

    def _write(self, data: bytes | bytearray, deadline_s: float) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                if not self._wait(select.POLLOUT, deadline_s):
                    # Part of a frame may be out: nothing can follow it.
                    raise self._ended("the master does not read what we send") from None
            except OSError as error:
                raise self._ended(f"the connection broke: {error}") from error

    def _wait(self, events: int, deadline_s: float | None) -> bool:
        if self._reason is not None:
            raise ConnectionClosed(self._reason)
        left_s = None if deadline_s is None else deadline_s - time.monotonic()
        if left_s is not None and left_s <= 0:
            return False
        poll = select.poll()
        poll.register(self._sock, events)
        return bool(poll.poll(None if left_s is None else left_s * 1000))

    def _ended(self, reason: str) -> ConnectionClosed:
        """Note the first reason: later errors only follow from it."""
        self.shutdown(reason)
        assert self._reason is not None
        return ConnectionClosed(self._reason)


def connect(
    address: Address | str,
    token: str | None,
    hello: Hello,
    *,
    connect_timeout_s: float = 10.0,
    handshake_timeout_s: float = 10.0,
    send_timeout_s: float = 60.0,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    ticket: bytes = b"",
) -> BlockingConnection:
    """Call a master and pass the handshake. `ticket` is for a further stream of a worker.

    Raises:
        Rejected: the master refused; the code and reason are its own.
        PeerFault: what answered does not speak the protocol, or not in time.
        EnvironmentFault: nothing answered at that address (`unreachable`), or
            the connection broke (`ConnectionClosed`).
    """
    target = parse_address(address) if isinstance(address, str) else address
    handshake = ClientHandshake(token, hello, secrets.token_bytes, ticket)
    sock = _dial(target, connect_timeout_s)
    connection = BlockingConnection(
        sock, Session(handshake, frame_bytes_max), target, send_timeout_s
    )
    try:
        connection._handshake(time.monotonic() + handshake_timeout_s)
    except BaseException:
        connection.close()
        raise
    return connection


def _dial(target: Address, timeout_s: float) -> socket.socket:
    try:
        if isinstance(target, UnixAddress):
            return _dial_unix(target, timeout_s)
        return socket.create_connection((target.host, target.port), timeout_s)
    except OSError as error:
        raise EnvironmentFault(
            "unreachable",
            f"can't reach a master at {target}: {error}; is it running there, "
            f"and does a firewall let {_what(target)} through?",
        ) from error


def _dial_unix(target: UnixAddress, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout_s)
        sock.connect(target.path)
    except BaseException:
        sock.close()
        raise
    return sock


def _what(target: Address) -> str:
    return f"TCP port {target.port}" if isinstance(target, TcpAddress) else "it"
