"""One multiplexed connection to the core, for every thread and task of a web process.

Owns the connection: opens it, matches answers to calls by `request`, opens it
again with full-jitter back-off after the core went away. Promises: a call ends
within its `timeout_s`; while there is no core it waits `patience_s` for one and
then fails with `core_unavailable`; when the connection breaks under it, a read
is sent once more, and a change fails at once (nobody knows whether it was
carried out). Leaves to others what the answers mean.

Two threads serve a connection: the reader, which also connects, and a writer,
so that neither Flask's threads nor the event loop ever block on the socket.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

import msgspec

from webui.problems import Problem, from_refused
from wire import messages
from wire.errors import LookoutError

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
BACKOFF_MAX_S = 3.0
POLL_S = 0.5


class Connection(Protocol):
    """What `wire.blocking` gives."""

    def send(self, message: messages.Message) -> None:
        """Send one message, whole; callable from any thread."""

    def receive(self, timeout_s: float | None = None) -> messages.Message | None:
        """Return the next message, or None when none came in time."""

    def shutdown(self) -> None:
        """End it and wake whoever waits, from any thread."""

    def close(self) -> None:
        """End it and give the socket back."""


class Lost(LookoutError):
    """The connection ended before the answer came."""


Pending = Future[messages.Message]


class Core:
    """Calls to the core, from threads (`call`) and from the event loop (`ask`)."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        patience_s: float = 2.0,
        calls_max: int = 4096,
        rng: random.Random | None = None,
    ) -> None:
        self._connect = connect
        self._patience_s = patience_s
        self._calls_max = calls_max
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._calls: dict[int, Pending] = {}
        self._next_request = 1
        self._link: _Link | None = None
        self._up: Future[None] = Future()
        self._stopping = threading.Event()
        self._events: _Subscription | None = None
        self._thread = threading.Thread(target=self._run, name="core", daemon=True)

    # --- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._thread.start()

    def close(self) -> None:
        """End the connection and fail what waits."""
        self._stopping.set()
        with self._lock:
            link = self._link
        if link is not None:
            link.connection.shutdown()
        self._thread.join(timeout=2 * POLL_S)

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

        Both are called from the reader's thread. `on_link` tells when the core
        came (True) or went (False).
        """
        with self._lock:
            if self._events is not None:
                return
            self._events = _Subscription(on_events, on_link)
            if self._link is not None:
                self._send_subscribe(self._link)

    # --- calls --------------------------------------------------------------------------

    def call(
        self, message: messages.Message, expect: type[Reply], timeout_s: float = 10.0
    ) -> Reply:
        """Ask and wait for the answer, in a thread.

        Raises:
            Problem: the core refused, or didn't answer in `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        for attempt in (1, 2):
            self._await_up_blocking(deadline)
            request, pending = self._begin(message)
            try:
                return _checked(pending.result(max(0.0, deadline - time.monotonic())), expect)
            except Lost:
                _raise_unless_read(message, attempt)
            except TimeoutError:
                raise _unanswered(timeout_s) from None
            finally:
                self._forget(request)
        raise _gone()

    async def ask(
        self, message: messages.Message, expect: type[Reply], timeout_s: float = 10.0
    ) -> Reply:
        """Ask and wait for the answer, in the event loop. Raises like `call`."""
        deadline = time.monotonic() + timeout_s
        for attempt in (1, 2):
            await self._await_up(deadline)
            request, pending = self._begin(message)
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    return _checked(await asyncio.wrap_future(pending), expect)
            except Lost:
                _raise_unless_read(message, attempt)
            except TimeoutError:
                raise _unanswered(timeout_s) from None
            finally:
                self._forget(request)
        raise _gone()

    def _await_up_blocking(self, deadline: float) -> None:
        up = self._up
        try:
            up.result(self._patience(deadline))
        except TimeoutError:
            raise _gone() from None

    async def _await_up(self, deadline: float) -> None:
        up = self._up
        if up.done():
            return
        try:
            async with asyncio.timeout(self._patience(deadline)):
                await asyncio.shield(asyncio.wrap_future(up))
        except TimeoutError:
            raise _gone() from None

    def _patience(self, deadline: float) -> float:
        left_s = max(0.0, deadline - time.monotonic())
        return min(self._patience_s, left_s)

    def _begin(self, message: messages.Message) -> tuple[int, Pending]:
        pending: Pending = Future()
        with self._lock:
            link = self._link
            if link is None:
                raise _gone()
            if len(self._calls) >= self._calls_max:
                raise Problem("busy", f"{self._calls_max} calls to the scheduler are in flight")
            request = self._next_request
            self._next_request += 1
            self._calls[request] = pending
        link.put(msgspec.structs.replace(message, request=request))
        return request, pending

    def _forget(self, request: int) -> None:
        with self._lock:
            self._calls.pop(request, None)

    # --- the reader's thread ------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                connection = self._connect()
            except LookoutError as fault:
                failures += 1
                delay_s = self._rng.uniform(0, min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2**failures))
                _log_fault(failures, delay_s, fault)
                self._stopping.wait(delay_s)
                continue
            failures = 0
            self._serve(_Link(connection))

    def _serve(self, link: _Link) -> None:
        log.info("core connected")
        with self._lock:
            self._link = link
            if self._events is not None:
                self._send_subscribe(link)
            self._up.set_result(None)
        self._tell(up=True)
        try:
            while not self._stopping.is_set():
                self._receive_one(link)
        except LookoutError as fault:
            if not self._stopping.is_set():
                log.warning("core lost: %s", fault)
        finally:
            self._drop(link)

    def _receive_one(self, link: _Link) -> None:
        message = link.connection.receive(POLL_S)
        if message is not None:
            self._take(message)

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.Events):
            self._take_events(message)
            return
        request = getattr(message, "request", None)
        if not isinstance(request, int):
            return
        with self._lock:
            pending = self._calls.pop(request, None)
        if pending is not None and pending.set_running_or_notify_cancel():
            pending.set_result(message)

    def _take_events(self, message: messages.Events) -> None:
        subscription = self._events
        if subscription is None or not message.events:
            return
        subscription.after = message.events[-1].id
        subscription.on_events(message.events)

    def _send_subscribe(self, link: _Link) -> None:
        subscription = self._events
        if subscription is not None:
            link.put(messages.Subscribe(request=0, after=subscription.after))

    def _drop(self, link: _Link) -> None:
        link.close()
        with self._lock:
            self._link = None
            self._up = Future()
            lost, self._calls = self._calls, {}
        for pending in lost.values():
            if pending.set_running_or_notify_cancel():
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


class _Link:
    """One connection and its writer thread."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._outgoing: queue.SimpleQueue[messages.Message | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="core-writer", daemon=True)
        self._writer.start()

    def put(self, message: messages.Message) -> None:
        self._outgoing.put(message)

    def close(self) -> None:
        self.connection.shutdown()
        self._outgoing.put(None)
        self.connection.close()

    def _write(self) -> None:
        while (message := self._outgoing.get()) is not None:
            try:
                self.connection.send(message)
            except LookoutError as fault:
                log.warning("core: sending failed: %s", fault)
                self.connection.shutdown()  # the reader sees it and fails what waits
                return


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
