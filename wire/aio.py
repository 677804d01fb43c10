"""The asyncio shell: listen for peers, or call one.

Owns sockets, admission to the listening side, and one log line for every
rejection (logger `lookout.wire`). Promises that strangers can't occupy it: at
most `unauthenticated_max` connections are in their handshake, and when one
more comes the oldest from the busiest address makes room. Runs under asyncio's
own loop and under uvloop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from wire.address import Address, TcpAddress, UnixAddress, parse_address
from wire.connection import Connection, ConnectionState, OnClosed, OnMessage, Owner, log
from wire.errors import EnvironmentFault, PeerFault
from wire.handshake import VERSIONS, Admission, ClientHandshake, ServerHandshake
from wire.limits import Limits
from wire.listen import BACKLOG, bind
from wire.loglimit import LogLimit
from wire.messages import Hello, Reject
from wire.session import Session

__all__ = [
    "Admission",
    "Connection",
    "ConnectionState",
    "Limits",
    "Server",
    "connect",
    "serve",
]

AdmitAt = Callable[[Hello, str], Admission | Reject]
OnPeer = Callable[[Connection], None]


class Server(Owner):
    """A listening socket and its connections. Made by `serve`.

    `rejections` counts by code; `connections` are those past their handshake.
    """

    def __init__(self, on_peer: OnPeer, token: str | None, admit: AdmitAt, limits: Limits) -> None:
        self.connections: set[Connection] = set()
        self.rejections: Counter[str] = Counter()
        self.address: Address = TcpAddress("", 0)
        self._on_peer = on_peer
        self._token = token
        self._admit = admit
        self._limits = limits
        self._strangers: dict[Connection, str] = {}
        self._transports: set[Connection] = set()
        self._log_limit = LogLimit()
        self._server: asyncio.Server | None = None
        self._all_lost = asyncio.Event()
        self._all_lost.set()

    @property
    def port(self) -> int:
        """The TCP port that it listens on; 0 for a Unix socket."""
        return self.address.port if isinstance(self.address, TcpAddress) else 0

    @property
    def unauthenticated(self) -> int:
        """Connections that have not proved themselves yet."""
        return len(self._strangers)

    async def listen(self, address: Address) -> None:
        """Bind and accept; raises `EnvironmentFault` if the address can't be had."""
        sock = bind(address)
        loop = asyncio.get_running_loop()
        self.address = address
        if isinstance(address, UnixAddress):
            self._server = await loop.create_unix_server(self._protocol, sock=sock, backlog=BACKLOG)
        else:
            self.address = TcpAddress(address.host, sock.getsockname()[1])
            self._server = await loop.create_server(self._protocol, sock=sock, backlog=BACKLOG)

    def close(self, reason: str = "the master is stopping") -> None:
        """Accept no more, and end every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if isinstance(self.address, UnixAddress):
                Path(self.address.path).unlink(missing_ok=True)
        for connection in list(self._transports):
            connection.close(reason)

    async def wait_closed(self) -> None:
        """Wait until every transport is gone: `linger_s` at most after `close`."""
        await self._all_lost.wait()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()

    def _protocol(self) -> Connection:
        connection: Connection

        def admit(hello: Hello) -> Admission | Reject:
            return self._ask(hello, connection.address)

        handshake = ServerHandshake(
            self._token, VERSIONS, secrets.token_bytes, admit, self._frame_bytes_max_of
        )
        connection = Connection(Session(handshake), self, self._limits, str(self.address))
        return connection

    def _ask(self, hello: Hello, address: str) -> Admission | Reject:
        """The edge: a bug of ours in admitting one client is told to that one only."""
        try:
            return self._admit(hello, address)
        except Exception:
            log.exception("admitting %r from %s failed", hello.name, address)
            return Reject(code="internal_error", reason="the master failed to decide; see its log")

    def _frame_bytes_max_of(self, hello: Hello) -> int:
        limits = self._limits
        return limits.worker_frame_bytes_max if hello.role == "worker" else limits.frame_bytes_max

    # --- stages of a connection ---------------------------------------------------------

    def made(self, connection: Connection) -> None:
        """Count a stranger, and make room for it."""
        peer = connection.peername()
        if isinstance(peer, tuple):
            connection.address = str(TcpAddress(peer[0], peer[1]))
        self._transports.add(connection)
        self._all_lost.clear()
        self._strangers[connection] = peer[0] if isinstance(peer, tuple) else "unix"
        if len(self._strangers) > self._limits.unauthenticated_max:
            self._evict()

    def opened(self, connection: Connection) -> None:
        """A stranger became a peer."""
        self._strangers.pop(connection, None)
        self.connections.add(connection)
        try:
            self._on_peer(connection)
        except Exception:  # the edge: our bug with one peer costs that one only
            log.exception("admitting %s failed", connection.address)
            connection.abort("internal error")

    def ended(self, connection: Connection, reason: str, fault: PeerFault | None) -> None:
        """Log the peer's faults; ends without fault are the user's to log."""
        self.connections.discard(connection)
        if fault is not None:
            self._note(connection, fault)

    def lost(self, connection: Connection) -> None:
        """The transport is gone: its place is free."""
        self._strangers.pop(connection, None)
        self.connections.discard(connection)
        self._transports.discard(connection)
        if not self._transports:
            self._all_lost.set()

    def _evict(self) -> None:
        """Drop the oldest stranger of the address that has most of them."""
        busiest, _ = Counter(self._strangers.values()).most_common(1)[0]
        oldest = next(c for c, host in self._strangers.items() if host == busiest)
        self._strangers.pop(oldest)
        limit = self._limits.unauthenticated_max
        oldest.evict(
            PeerFault("too_many_strangers", f"more than {limit} connections in their handshake")
        )

    def _note(self, connection: Connection, fault: PeerFault) -> None:
        self.rejections[fault.code] += 1
        left_out = self._log_limit.allow(asyncio.get_running_loop().time())
        if left_out is None:
            return
        log.warning(
            "rejected %s: code=%s reason=%s%s%s",
            connection.address,
            fault.code,
            fault.reason,
            connection.who(),
            f" ({left_out} more rejections were not logged)" if left_out else "",
        )


async def serve(
    address: Address | str,
    on_peer: OnPeer,
    *,
    token: str | None,
    admit: AdmitAt,
    limits: Limits | None = None,
) -> Server:
    """Listen, and call `on_peer` with every connection that passed its handshake.

    `token` None is open mode: everybody is let in. `admit(hello, address)`
    decides about a client that proved the token. `on_peer` sets the
    connection's `on_message` and `on_closed`. TCP port 0 binds a free one:
    see `Server.address`.

    Raises:
        EnvironmentFault: the address is in use, not ours, or not permitted.
    """
    server = Server(on_peer, token, admit, limits or Limits())
    await server.listen(_address(address))
    if token is None:
        log.warning("open mode on %s: no join token is asked for", server.address)
    return server


class _Caller(Owner):
    """Waits for the handshake of a connection that we began."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def opened(self, connection: Connection) -> None:
        """We were let in."""
        if not self.done.done():
            self.done.set_result(None)

    def ended(self, connection: Connection, reason: str, fault: PeerFault | None) -> None:
        """It ended before or after we were let in."""
        if not self.done.done():
            self.done.set_exception(fault or EnvironmentFault("connection_closed", reason))


async def connect(
    address: Address | str,
    token: str | None,
    hello: Hello,
    *,
    on_message: OnMessage | None = None,
    on_closed: OnClosed | None = None,
    connect_timeout_s: float = 10.0,
    limits: Limits | None = None,
) -> Connection:
    """Call a master and pass the handshake.

    Raises:
        Rejected: the master refused; the code and reason are its own.
        PeerFault: what answered does not speak the protocol, or not in time.
        EnvironmentFault: nothing answered at that address.
    """
    limits = limits or Limits()
    target = _address(address)
    caller = _Caller()
    handshake = ClientHandshake(token, hello, secrets.token_bytes)
    session = Session(handshake, limits.frame_bytes_max)
    connection = Connection(session, caller, limits, str(target))
    connection.on_message, connection.on_closed = on_message, on_closed
    try:
        async with asyncio.timeout(connect_timeout_s):
            await _dial(target, connection)
    except (OSError, TimeoutError) as error:
        raise _unreachable(target, error) from error
    try:
        await caller.done
    except asyncio.CancelledError:
        connection.abort("the caller gave up")
        raise
    return connection


async def _dial(target: Address, connection: Connection) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(target, UnixAddress):
        await loop.create_unix_connection(lambda: connection, target.path)
    else:
        await loop.create_connection(lambda: connection, target.host, target.port)


def _address(address: Address | str) -> Address:
    return parse_address(address) if isinstance(address, str) else address


def _unreachable(target: Address, error: BaseException) -> EnvironmentFault:
    why = str(error) or "no answer in time"
    return EnvironmentFault(
        "unreachable", f"can't reach a master at {target}: {why}; is it running there?"
    )
