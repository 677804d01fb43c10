"""A master over a real socket that records what happens to it, and callers of all manners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.unit.wire.link import TOKEN, hello
from wire import aio, codec
from wire import messages as m
from wire.aio import Admission, Connection, Limits, Server
from wire.errors import PeerFault
from wire.framing import HEADER_BYTES

DEADLINE_S = 20.0
BEAT = m.Heartbeat(seq=1, progress=0, held=0, executing=0)
ACK = m.HeartbeatAck(seq=1)
Ended = tuple[str, PeerFault | None]
Run = Callable[[Coroutine[Any, Any, None]], None]


class Master:
    """A server that records: who came, what they said, how they ended."""

    def __init__(self, answer: Callable[[Connection, m.Message], None] | None = None) -> None:
        self.peers: asyncio.Queue[Connection] = asyncio.Queue()
        self.heard: asyncio.Queue[m.Message] = asyncio.Queue()
        self.ended: asyncio.Queue[Ended] = asyncio.Queue()
        self._answer = answer

    def on_peer(self, connection: Connection) -> None:
        connection.on_message = self._on_message
        connection.on_closed = self._on_closed
        self.peers.put_nowait(connection)

    def _on_message(self, connection: Connection, message: m.Message) -> None:
        self.heard.put_nowait(message)
        if self._answer is not None:
            self._answer(connection, message)

    def _on_closed(self, connection: Connection, reason: str, fault: PeerFault | None) -> None:
        self.ended.put_nowait((reason, fault))

    async def serve(
        self, address: str = "127.0.0.1:0", token: str | None = TOKEN, **limits: Any
    ) -> Server:
        return await aio.serve(
            address, self.on_peer, token=token, admit=admit, limits=Limits(**limits)
        )


def admit(who: m.Hello, address: str) -> Admission | m.Reject:
    """`eve` is refused, everybody else comes in."""
    if who.name == "eve":
        return m.Reject(code="banned", reason=f"{who.name} at {address} may not come in")
    return Admission(peer=f"w-{who.name}", heartbeat_interval_s=0.5, lease_ttl_s=3)


def echo(connection: Connection, message: m.Message) -> None:
    """Acknowledges heartbeats."""
    if isinstance(message, m.Heartbeat):
        connection.send(m.HeartbeatAck(seq=message.seq))


async def dial(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare socket, for peers that misbehave."""
    return await asyncio.open_connection("127.0.0.1", server.port)


async def read_fault(reader: asyncio.StreamReader) -> m.ProtocolFault:
    """The one frame that the server sends before it closes."""
    data = await reader.read()
    frame_bytes = int.from_bytes(data[:HEADER_BYTES], "big")
    assert len(data) == HEADER_BYTES + frame_bytes
    message = codec.decode(data[HEADER_BYTES:], codec.HANDSHAKE_FROM_CLIENT)
    assert isinstance(message, m.ProtocolFault)
    return message


async def cut_off(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of the stream; False if something was said before it."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def still_serves(server: Server, master: Master) -> None:
    """A good peer gets in and is answered."""
    worker = await aio.connect(server.address, TOKEN, hello(name="good"))
    worker.send(BEAT)
    while (await master.heard.get()) != BEAT:
        pass


async def drip(writer: asyncio.StreamWriter, data: bytes, pause_s: float) -> None:
    """Send so slowly that only a deadline over the whole frame can notice."""
    for i in range(len(data)):
        writer.write(data[i : i + 1])
        await asyncio.sleep(pause_s)


async def joined(server: Server, master: Master) -> tuple[Connection, Connection]:
    """A worker's connection and the master's end of it."""
    worker = await aio.connect(server.address, TOKEN, hello())
    return worker, await master.peers.get()


def raw(connection: Connection) -> asyncio.Transport:
    """The transport under a client's connection, to write what no client would."""
    transport = connection._transport
    assert transport is not None
    return transport
