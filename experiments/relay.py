"""A relay that breaks whole messages, as applications inject faults; also cuts, and counts.

One relay stands between a worker and the master, or between the client and the
web. It speaks the wire's framing (4 bytes of length, then MessagePack with a
`type`; `wire/PROTOCOL.md`) and changes no byte. Only messages about jobs are
lost or delayed: a published system that injected its faults had no heartbeats,
and delaying ours would measure the failure detector instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from experiments.scenario import Message

LENGTH_BYTES: Final = 4
FRAME_BYTES_MAX: Final = 64 * 2**20
READ_BYTES: Final = 2**16
# A lost message is sent again until one try arrives; 0.99^2000 is below 1e-8.
TRIES_MAX: Final = 2000
# Frames that wait for their delay, each way; past it the sender isn't read.
HELD_FRAMES_MAX: Final = 4096
ASSIGN: Final = "Assign"
JOB_TYPES: Final = frozenset({ASSIGN, "Result"})


class _Kind(msgspec.Struct):
    type: str = ""


_DECODER: Final = msgspec.msgpack.Decoder(_Kind)


@dataclass(slots=True)
class Counts:
    """What a relay saw: job messages, how many tries were lost, and bytes both ways."""

    messages: int = 0
    lost: int = 0
    bytes: int = 0


class Relay:
    """A TCP port that leads to `target`, fault by fault.

    `on_assign` is told of each job on its way to a worker; `faults` may change at any time.
    Use within one event loop.
    """

    def __init__(
        self,
        target: tuple[str, int],
        faults: Message,
        rng: np.random.Generator,
        *,
        framed: bool,
        on_assign: Callable[[], None] | None = None,
    ) -> None:
        self.counts = Counts()
        self._target = target
        self.faults = faults
        self._rng = rng
        self._framed = framed
        self._on_assign = on_assign
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen on a port of the kernel's choice; returns it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Let nothing through; connections stay open, as behind a dead switch."""
        self._open.clear()

    def heal(self) -> None:
        """Let everything through again, also what was held."""
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either end went away, or the run is over: the other end is closed below
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(*self._target)
        if self._framed:
            ways = [self._frames(reader, onward_writer), self._frames(onward_reader, writer)]
        else:
            asked = asyncio.Event()
            ways = [
                self._requests(reader, onward_writer, asked),
                self._replies(onward_reader, writer, asked),
            ]
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            onward_writer.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while data := await reader.read(READ_BYTES):
            await self._pass_on(writer, data)
            asked.set()

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        """Answers, and sometimes the end of the connection in place of one.

        The first bytes after a request begin an answer: a connection of HTTP/1.1 carries
        one request at a time.
        """
        while data := await reader.read(READ_BYTES):
            if asked.is_set():
                asked.clear()
                self.counts.messages += 1
                if self._rng.random() < self.faults.lost_replies:
                    self.counts.lost += 1
                    return
            await self._pass_on(writer, data)

    async def _frames(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Frames; those about jobs wait their turn in a queue, the others pass them by."""
        held: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(HELD_FRAMES_MAX)
        carrier = asyncio.ensure_future(self._carry(held, writer))
        try:
            while (frame := await _read_frame(reader)) is not None:
                kind = _DECODER.decode(memoryview(frame)[LENGTH_BYTES:]).type
                if kind in JOB_TYPES:
                    await held.put((kind, frame))
                else:
                    await self._pass_on(writer, frame)
        finally:
            carrier.cancel()
            await asyncio.gather(carrier, return_exceptions=True)

    async def _carry(
        self, held: asyncio.Queue[tuple[str, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            kind, frame = await held.get()
            self.counts.messages += 1
            if kind == ASSIGN and self._on_assign is not None:
                self._on_assign()
            await suffer(self.faults, self._rng, self.counts, asyncio.sleep)
            await self._pass_on(writer, frame)

    async def _pass_on(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self._open.wait()
        self.counts.bytes += len(data)
        writer.write(data)
        await writer.drain()


async def suffer(
    faults: Message,
    rng: np.random.Generator,
    counts: Counts,
    sleep: Callable[[float], Awaitable[object]],
) -> None:
    """What one message goes through: a timeout for each try that is lost, then the delay."""
    for _ in range(TRIES_MAX):
        if rng.random() >= faults.loss:
            break
        counts.lost += 1
        await sleep(faults.timeout_s)
    if faults.delay_s:
        await sleep(faults.delay_s)


async def _read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """Length and payload; None at the end of the stream or for what is no frame."""
    try:
        head = await reader.readexactly(LENGTH_BYTES)
        size = int.from_bytes(head, "big")
        if size > FRAME_BYTES_MAX:
            return None
        return head + await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        return None
