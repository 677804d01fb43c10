"""One multiplexed connection to the core, for every thread and task of a web process.

Owns the connection: opens it, matches answers to calls by `request`, opens it
again with full-jitter back-off after the core went away. Promises: a call ends
within its `timeout_s`; while there is no core it waits `patience_s` for one and
then fails with `core_unavailable`; when the connection breaks under it, a read
is sent once more, and a change fails at once (nobody knows whether it was
carried out). Leaves to others what the answers mean.

It lives in the event loop, where the uploads are: what many requests ask within
one turn of the loop goes out in one write, and an answer wakes its request without
a thread between them (measured: two threads and three futures a call took 110 us of
CPU, this takes 15). Flask's threads hand their calls over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from webui.problems import Problem, from_refused
from wire import messages
from wire.aio import Connection
from wire.errors import ConnectionClosed, LocalFault, LookoutError, PeerFault

log = logging.getLogger("webui.core")

Reply = TypeVar("Reply", bound=messages.Message)
READS = (
    messages.GetJobs,
    messages.ListJobs,
    messages.WaitJobs,
    messages.GetImage,
    messages.GetSubmission,
    messages.GetWorkers,
    messages.GetModel,
    messages.GetStats,
    messages.GetMetrics,
)
BACKOFF_BASE_S = 0.1
# Its core is on the same machine or in the next room, and every request waits for it.
BACKOFF_MAX_S = 0.5
# Uploads beyond this wait for the core to read before they are written to its connection.
UNSENT_BYTES_MAX = 16 * 2**20
# What a thread waits longer than the loop, which is to give the reason.
THREAD_GRACE_S = 5.0


class Lost(LookoutError):
    """The connection ended before the answer came."""


Pending = asyncio.Future[messages.Message]


class Core:
    """Calls to the core, from threads (`call`) and from the event loop (`ask`)."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        patience_s: float = 2.0,
        calls_max: int = 4096,
        rng: random.Random | None = None,
    ) -> None:
        self._connect = connect
        self._patience_s = patience_s
        self._calls_max = calls_max
        self._rng = rng or random.Random()
        self._gather_s = 0.0
        self._calls: dict[int, Pending] = {}
        self._next_request = 1
        self._link: Connection | None = None
        self._events: _Subscription | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._up: asyncio.Event | None = None
        self._down: asyncio.Event | None = None

    # --- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._running = self._loop.create_task(self._run())

    def close(self) -> None:
        """End the connection and fail what waits."""
        if self._running is not None:
            self._running.cancel()
        if self._link is not None:
            link = self._link
            self._lost(link, "the web process ends", None)
            link.close("the web process ends")

    @property
    def connected(self) -> bool:
        """Whether the core is there now."""
        return self._link is not None

    def subscribe(
        self,
        on_events: Callable[[list[messages.Event]], None],
        on_link: Callable[[bool], None],
    ) -> None:
        """Stream the core's events from now on, over every reconnect.

        Both are called in the event loop. `on_link` tells when the core came (True)
        or went (False).
        """
        if self._events is None:
            self._events = _Subscription(on_events, on_link)
            self._send_subscribe()

    # --- calls --------------------------------------------------------------------------

    def call(
        self, message: messages.Message, expect: type[Reply], timeout_s: float = 10.0
    ) -> Reply:
        """Ask and wait for the answer, in a thread.

        Raises:
            Problem: the core refused, or didn't answer in `timeout_s`.
        """
        if self._loop is None:
            raise _gone()
        asked = asyncio.run_coroutine_threadsafe(self.ask(message, expect, timeout_s), self._loop)
        try:
            return asked.result(timeout_s + THREAD_GRACE_S)
        except TimeoutError:
            asked.cancel()
            raise _unanswered(timeout_s) from None

    async def ask(
        self, message: messages.Message, expect: type[Reply], timeout_s: float = 10.0
    ) -> Reply:
        """Ask and wait for the answer, in the event loop. Raises like `call`."""
        deadline = time.monotonic() + timeout_s
        for attempt in (1, 2):
            link = self._link or await self._await_up(deadline)
            if link.write_buffer_bytes > UNSENT_BYTES_MAX:
                await self._await_room(link, deadline, timeout_s)
            request, pending = self._begin(link, message)
            timer = self._clock().call_later(
                max(0.0, deadline - time.monotonic()), _expire, pending, timeout_s
            )
            try:
                return _checked(await pending, expect)
            except Lost:
                _raise_unless_read(message, attempt)
            finally:
                timer.cancel()
                self._calls.pop(request, None)
        raise _gone()

    def _clock(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None, "start() comes before the first call"
        return self._loop

    async def _await_up(self, deadline: float) -> Connection:
        left_s = min(self._patience_s, max(0.0, deadline - time.monotonic()))
        if self._up is None:
            raise _gone()
        try:
            async with asyncio.timeout(left_s):
                await self._up.wait()
        except TimeoutError:
            raise _gone() from None
        if self._link is None:  # it came and went
            raise _gone()
        return self._link

    async def _await_room(self, link: Connection, deadline: float, timeout_s: float) -> None:
        """Let the core read what is on its way before more is put there."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                while link.write_buffer_bytes > UNSENT_BYTES_MAX:
                    await link.drain()
        except TimeoutError:
            raise _unanswered(timeout_s) from None
        except ConnectionClosed:
            raise _gone() from None

    def _begin(self, link: Connection, message: messages.Message) -> tuple[int, Pending]:
        if len(self._calls) >= self._calls_max:
            raise Problem("busy", f"{self._calls_max} calls to the scheduler are in flight")
        request = self._next_request
        self._next_request += 1
        pending: Pending = self._clock().create_future()
        try:
            # With nothing else on its way there is nothing to gather with.
            gather_s = self._gather_s if self._calls and _is_patient(message) else 0.0
            sent = link.send(msgspec.structs.replace(message, request=request), gather_s)
        except LocalFault as fault:
            raise Problem("internal_error", f"the scheduler can't be asked that: {fault}") from None
        if not sent:
            raise _gone()
        self._calls[request] = pending
        return request, pending

    # --- the connection -----------------------------------------------------------------

    async def _run(self) -> None:
        assert self._down is not None
        failures = 0
        while True:
            try:
                link = await self._connect()
            except LookoutError as fault:
                failures += 1
                delay_s = self._rng.uniform(0, min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2**failures))
                _log_fault(failures, delay_s, fault)
                await asyncio.sleep(delay_s)
                continue
            failures = 0
            self._down.clear()
            self._serve(link)
            await self._down.wait()

    def _serve(self, link: Connection) -> None:
        assert self._up is not None
        log.info("core connected")
        self._link = link
        link.on_message, link.on_closed = self._take, self._lost
        self._send_subscribe()
        self._up.set()
        self._tell(up=True)
        if not link.is_open:  # it ended before anybody listened
            self._lost(link, link.closed_reason, None)

    def _take(self, _: Connection, message: messages.Message) -> None:
        if isinstance(message, messages.Events):
            self._take_events(message)
            return
        if isinstance(message, messages.Submitted):
            self._gather_s = message.gather_s
        pending = self._calls.pop(getattr(message, "request", -1), None)
        if pending is not None and not pending.done():
            pending.set_result(message)

    def _take_events(self, message: messages.Events) -> None:
        subscription = self._events
        if subscription is None or not message.events:
            return
        subscription.after = message.events[-1].id
        subscription.on_events(message.events)

    def _send_subscribe(self) -> None:
        if self._link is not None and self._events is not None:
            self._link.send(messages.Subscribe(request=0, after=self._events.after))

    def _lost(self, link: Connection, reason: str, fault: PeerFault | None) -> None:
        if link is not self._link:
            return
        assert self._up is not None and self._down is not None
        log.warning("core lost: %s", reason)
        self._link = None
        self._up.clear()
        self._down.set()
        lost, self._calls = self._calls, {}
        for pending in lost.values():
            if not pending.done():
                pending.set_exception(Lost("the connection to the scheduler ended"))
        self._tell(up=False)

    def _tell(self, *, up: bool) -> None:
        if self._events is not None:
            self._events.on_link(up)


class _Subscription:
    """The one event stream of this process and how far it has come."""

    def __init__(
        self,
        on_events: Callable[[list[messages.Event]], None],
        on_link: Callable[[bool], None],
    ) -> None:
        self.on_events = on_events
        self.on_link = on_link
        self.after: str | None = None


def _is_patient(message: messages.Message) -> bool:
    """Whether the core lets it wait for others: see `Submitted.gather_s`."""
    if isinstance(message, messages.Submit):
        return message.patient
    return isinstance(message, messages.WaitJobs)


def _expire(pending: Pending, timeout_s: float) -> None:
    if not pending.done():
        pending.set_exception(_unanswered(timeout_s))


def _checked(reply: messages.Message, expect: type[Reply]) -> Reply:
    if isinstance(reply, messages.Refused):
        raise from_refused(reply)
    if not isinstance(reply, expect):
        raise Problem("internal_error", f"the scheduler answered {type(reply).__name__}")
    return reply


def _raise_unless_read(message: messages.Message, attempt: int) -> None:
    if attempt == 2 or not isinstance(message, READS):
        raise _gone() from None


def _gone() -> Problem:
    return Problem("core_unavailable", "the scheduler isn't there; it is usually back in seconds")


def _unanswered(timeout_s: float) -> Problem:
    return Problem("core_unavailable", f"the scheduler didn't answer within {timeout_s:g} s")


def _log_fault(failures: int, delay_s: float, fault: Exception) -> None:
    # The first failures and then every twentieth: a core that is down for an hour
    # must not fill the log.
    if failures <= 3 or failures % 20 == 0:
        log.warning("core: attempt %d failed, next in %.1f s: %s", failures, delay_s, fault)
