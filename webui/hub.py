"""One stream of the core's events, fanned out to every browser of this process.

Events are gathered for a while, longer the more listen, and written once as one
chunk (`webui.chunks`) that all clients share: a job that changes three times
within a flush is sent once, as it is at the end. A client that doesn't read
has a queue bounded in bytes; when it overflows, the queue is dropped and the
client is told `reset` (fetch everything again). A client that comes back with
`Last-Event-ID` gets what it missed, if this process still holds it.

Lives in the event loop; only `push` and `set_link` come from other threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable

from webui import chunks
from webui.chunks import Chunk
from webui.config import Limits
from webui.core import Core
from webui.problems import Problem
from wire import messages

log = logging.getLogger("webui.hub")

RETRY_MS = 2000


class Client:
    """One browser: a queue bounded in bytes, plain or as a gzip stream."""

    def __init__(self, bytes_max: int, *, gzip: bool = False) -> None:
        self.gzip = gzip
        self.closed = False
        self._pieces: deque[bytes] = deque([chunks.GZIP_HEADER] if gzip else [])
        self._bytes = 0
        self._bytes_max = bytes_max
        self._wake = asyncio.Event()

    def put(self, chunk: Chunk) -> None:
        """Queue a chunk, or drop all and say `reset` when it is too much."""
        piece = self._coded(chunk)
        if self._bytes + len(piece) > self._bytes_max:
            self._drop()
            piece = self._coded(chunks.RESET)
        self._pieces.append(piece)
        self._bytes += len(piece)
        self._wake.set()

    def close(self) -> None:
        """End the stream after what is queued."""
        self.closed = True
        self._wake.set()

    async def next(self, timeout_s: float) -> bytes | None:
        """Return what is queued, a heartbeat after `timeout_s`, or None at the end."""
        if not self._pieces and not self.closed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return self._coded(chunks.HEARTBEAT)
        self._wake.clear()
        if not self._pieces:
            return None if self.closed else self._coded(chunks.HEARTBEAT)
        joined = b"".join(self._pieces)
        self._pieces.clear()
        self._bytes = 0
        return joined

    @property
    def ending(self) -> bytes:
        """What is written after the last event."""
        return chunks.GZIP_END if self.gzip else b""

    def _coded(self, chunk: Chunk) -> bytes:
        return chunk.packed if self.gzip else chunk.plain

    def _drop(self) -> None:
        # Blocks stand for themselves, so any may be left out; the header may not.
        header = self._pieces and self._pieces[0] == chunks.GZIP_HEADER
        self._pieces = deque([chunks.GZIP_HEADER] if header else [])
        self._bytes = 0


class Hub:
    """The clients of one process and the recent events."""

    def __init__(self, core: Core, limits: Limits) -> None:
        self._core = core
        self._limits = limits
        self._clients: set[Client] = set()
        self._history: OrderedDict[str, messages.Event] = OrderedDict()
        self._gathered: list[messages.Event] = []
        self._flushing = False
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def clients(self) -> int:
        """How many browsers listen."""
        return len(self._clients)

    def join(self, last_event_id: str | None, *, gzip: bool = False) -> Client:
        """Add a client; the stream from the core begins with the first.

        Raises:
            Problem: `busy` at the bound, `draining` at the end.
        """
        if self._closing:
            raise Problem("draining", "the server is shutting down")
        if len(self._clients) >= self._limits.sse_clients:
            raise Problem("busy", f"{self._limits.sse_clients} event streams are open")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._core.subscribe(self._push_threadsafe, self._link_threadsafe)
        client = Client(self._limits.sse_client_bytes, gzip=gzip)
        client.put(self._greeting(last_event_id))
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self._clients.discard(client)

    def close(self) -> None:
        """End every stream."""
        self._closing = True
        for client in self._clients:
            client.close()

    def _greeting(self, last_event_id: str | None) -> Chunk:
        hello = chunks.greeting(retry_ms=RETRY_MS) + chunks.link(up=self._core.connected)
        if last_event_id is None:
            return hello
        if last_event_id not in self._history:
            return hello + chunks.RESET
        known = list(self._history)
        missed = known[known.index(last_event_id) + 1 :]
        return hello + chunks.encode(self._history[event_id] for event_id in missed)

    def _push_threadsafe(self, events: list[messages.Event]) -> None:
        self._in_loop(lambda: self.push(events))

    def _link_threadsafe(self, up: bool) -> None:
        self._in_loop(lambda: self._broadcast(chunks.link(up=up)))

    def _in_loop(self, callback: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def push(self, events: list[messages.Event]) -> None:
        """Take events of the core; they are sent with the next flush."""
        for event in events:
            self._history[event.id] = event
        while len(self._history) > self._limits.sse_history_events:
            self._history.popitem(last=False)
        self._gathered.extend(events)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(self._flush_s(), self._flush)

    def _flush_s(self) -> float:
        limits = self._limits
        crowded_s = len(self._clients) * limits.sse_flush_per_client_s
        return min(limits.sse_flush_max_s, max(limits.sse_flush_s, crowded_s))

    def _flush(self) -> None:
        self._flushing = False
        events, self._gathered = self._gathered, []
        if events and self._clients:
            self._broadcast(chunks.encode(events))

    def _broadcast(self, chunk: Chunk) -> None:
        for client in self._clients:
            client.put(chunk)
