"""One HTTP request and its answer over ASGI, with every wait bounded.

Owns reading the body (idle time, average rate and size are limited), writing
the answer (a client that stops reading is let go), and the memory budget that
both share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

import msgspec

from webui.config import Limits
from webui.problems import Problem

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[str, str]]

JSON = "application/json"
# What an early refusal still reads, so that the client sees the answer and not a reset.
DISCARD_BYTES = 8 * 2**20
DISCARD_S = 2.0
# How often waits that are overdue are looked for.
SWEEP_S = 0.25


class Disconnected(Exception):
    """The client went away or stopped reading; there is nobody to answer."""


class Budget:
    """Bytes of bodies that this process may hold, all requests together."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0

    def take(self, count: int) -> None:
        """Reserve bytes.

        Raises:
            Problem: `busy`, where there is no room now.
        """
        if self.held + count > self.bytes_max:
            raise Problem("busy", f"bodies of {self.held} bytes are in flight here already")
        self.held += count

    def give(self, count: int) -> None:
        """Return bytes."""
        self.held -= count


class Stalls:
    """Ends waits that last too long, with one timer for all requests of a process.

    `asyncio.timeout` costs 6 us, and a request of 100 kB has eight such waits. A wait
    ends up to `SWEEP_S` late.
    """

    def __init__(self) -> None:
        self._waits: dict[Wait, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, wait: Wait) -> None:
        """Watch a wait until `forget`."""
        self._waits[wait] = None
        if self._timer is None:
            self._arm()

    def forget(self, wait: Wait) -> None:
        """It is over."""
        self._waits.pop(wait, None)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        now = time.monotonic()
        for wait in [wait for wait in self._waits if wait.until <= now]:
            self.forget(wait)
            wait.overdue = True
            wait.task.cancel()
        self._timer = None
        if self._waits:
            self._arm()


class Wait:
    """A wait of one task until a moment. Raises `TimeoutError` out of the `with` past it."""

    __slots__ = ("_stalls", "overdue", "task", "until")

    def __init__(self, stalls: Stalls, timeout_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None, "a request is served by a task"
        self.task = task
        self.until = time.monotonic() + timeout_s
        self.overdue = False
        self._stalls = stalls

    def __enter__(self) -> None:
        self._stalls.add(self)

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: object) -> None:
        self._stalls.forget(self)
        if self.overdue and kind is asyncio.CancelledError and self.task.uncancel() == 0:
            raise TimeoutError from None


class Exchange:
    """A request to read and an answer to write."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limits: Limits,
        budget: Budget,
        stalls: Stalls,
    ) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.limits = limits
        self.budget = budget
        self.started = False
        self._stalls = stalls
        self._receive = receive
        self._send = send
        self._body_ended = False

    @cached_property
    def headers(self) -> dict[str, str]:
        """Headers by lower-case name; of a repeated one the last counts."""
        return {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in self.scope["headers"]
        }

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """Query parameters."""
        text = self.scope["query_string"].decode("latin-1")
        if not text:
            return {}
        return parse_qs(text, keep_blank_values=True, max_num_fields=64)

    @property
    def content_type(self) -> str:
        """The media type of the body, in lower case, without parameters."""
        return self.headers.get("content-type", "").split(";", 1)[0].strip().lower()

    # --- reading --------------------------------------------------------------------------

    async def body(self, bytes_max: int) -> AsyncIterator[bytes]:
        """Yield the body piece by piece.

        Raises:
            Problem: `request_too_large`, `slow_body`, `bad_request`.
            Disconnected: the client went away.
        """
        declared = self._check_length(bytes_max)
        began = time.monotonic()
        size = 0
        while not self._body_ended:
            piece = await self._piece()
            size += len(piece)
            if size > bytes_max:
                raise _too_large(bytes_max)
            self._check_rate(size, time.monotonic() - began)
            # The server would only say so: a turn through its threads and ours for nothing.
            self._body_ended |= 0 < size == declared
            if piece:
                yield piece

    async def small_body(self) -> bytes:
        """Return a whole body of at most `small_body_bytes`. Raises like `body`."""
        return b"".join([piece async for piece in self.body(self.limits.small_body_bytes)])

    async def discard(self) -> None:
        """Read on for a moment, so that an early answer isn't lost in a reset."""
        if not self._has_body() or self._declared() > DISCARD_BYTES:
            return
        left = DISCARD_BYTES
        try:
            async with asyncio.timeout(DISCARD_S):
                while not self._body_ended and left > 0:
                    left -= len(await self._piece())
        except (TimeoutError, Problem):
            return

    async def disconnected(self) -> None:
        """Return when the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _piece(self) -> bytes:
        try:
            with Wait(self._stalls, self.limits.body_idle_s):
                message = await self._receive()
        except TimeoutError:
            raise Problem("slow_body", f"nothing came for {self.limits.body_idle_s:g} s") from None
        if message["type"] == "http.disconnect":
            raise Disconnected
        self._body_ended = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    def _has_body(self) -> bool:
        return "content-length" in self.headers or "transfer-encoding" in self.headers

    def _declared(self) -> int:
        text = self.headers.get("content-length", "0")
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Problem("bad_request", f"Content-Length {text[:32]!r} isn't a length")
        return int(text)

    def _check_length(self, bytes_max: int) -> int:
        declared = self._declared()
        if declared > bytes_max:
            raise _too_large(bytes_max)
        return declared

    def _check_rate(self, size: int, elapsed_s: float) -> None:
        if elapsed_s > self.limits.body_grace_s:
            wanted = self.limits.body_bytes_per_s * (elapsed_s - self.limits.body_grace_s)
            if size < wanted:
                raise Problem(
                    "slow_body", f"{size} bytes in {elapsed_s:.0f} s is below the least rate"
                )

    # --- writing ----------------------------------------------------------------------------

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        self.started = True
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._write({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        """Send a piece of the body."""
        await self._write({"type": "http.response.body", "body": chunk, "more_body": more})

    async def respond(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Send a whole answer; to HEAD without the body."""
        bodiless = self.method == "HEAD" or status in {204, 304}
        all_headers = list(headers)
        if status not in {204, 304}:
            all_headers = [pair for pair in all_headers if pair[0].lower() != "content-length"]
            all_headers.append(("Content-Length", str(len(body))))
        await self.start(status, all_headers)
        await self.write(b"" if bodiless else body, more=False)

    async def respond_json(self, status: int, value: Any, headers: Headers = ()) -> None:
        """Send a value as JSON."""
        base = [("Content-Type", JSON), ("Cache-Control", "no-store")]
        await self.respond(status, [*base, *headers], msgspec.json.encode(value))

    async def respond_problem(self, problem: Problem) -> None:
        """Send a problem, unless an answer has begun already."""
        if self.started:
            return
        if not self._body_ended:
            await self.discard()
        headers = problem.headers()
        if self._has_body() and not self._body_ended:
            headers.append(("Connection", "close"))
        await self.respond(problem.status, headers, problem.body())

    async def _write(self, message: dict[str, Any]) -> None:
        try:
            with Wait(self._stalls, self.limits.send_stall_s):
                await self._send(message)
        except TimeoutError:
            raise Disconnected from None


def _too_large(bytes_max: int) -> Problem:
    return Problem("request_too_large", f"at most {bytes_max} bytes are taken in one request")
