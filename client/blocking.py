"""The client for everybody else: `Lookout`, whose event loop runs in a thread of its own.

Work goes on between two results, an interrupt reaches the caller at once, and a
call works where another event loop runs already (a notebook).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from typing import Any, Self, TypeVar

from client.aio import AsyncLookout, check
from client.config import CONCURRENCY, Clock, Limits
from client.errors import BadInput
from client.job import Job
from client.journey import Retry
from client.run import Outcome, Run
from client.sources import ImageLike

_T = TypeVar("_T")
# Cancelling closes sockets; only a thread in a stuck file system takes longer.
CLOSE_TIMEOUT_S = 5.0
SIGNAL_CHECK_S = 0.25


class Lookout:
    """A Lookout server, at `url`. Use as a context manager, or `close` it.

    >>> with Lookout("http://master") as lookout:
    ...     for outcome in lookout.classify("photos/", recursive=True):
    ...         print(outcome.image, outcome.result.label)

    Raises:
        BadInput: `url` is no http or https URL.
    """

    def __init__(
        self, url: str, *, limits: Limits | None = None, clock: Clock | None = None
    ) -> None:
        self._lookout = AsyncLookout(url, limits=limits, clock=clock)
        self.url = self._lookout.url
        self._portal = _Portal()
        self._finalizer = weakref.finalize(self, self._portal.stop, self._lookout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every call and close the connections. Idempotent."""
        self._finalizer()

    def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        concurrency: int = CONCURRENCY,
        deadline_s: float | None = None,
        recursive: bool = False,
        in_order: bool = False,
        on_result: Callable[[Outcome], object] | None = None,
        on_retry: Callable[[Retry], object] | None = None,
        on_wait: Callable[[Job], object] | None = None,
    ) -> Results:
        """Classify images; an iterator of their outcomes.

        The arguments are those of `AsyncLookout.classify`. Callbacks are called from the
        client's own thread.

        Raises:
            BadInput: `concurrency` or `deadline_s` is outside its limits.
        """
        check(concurrency, deadline_s)
        run = self._portal.call(
            self._lookout.classify(
                images,
                concurrency=concurrency,
                deadline_s=deadline_s,
                recursive=recursive,
                in_order=in_order,
                on_result=on_result,
                on_retry=on_retry,
                on_wait=on_wait,
            )
        )
        return Results(self._portal, run)


class Results:
    """Outcomes of one call. Leaving the `with` block, or `close`, ends the work."""

    def __init__(self, portal: _Portal, run: Run) -> None:
        self._portal = portal
        self._run = run
        self._finalizer = weakref.finalize(self, portal.begin, run.aclose)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        """The next outcome.

        Raises:
            Unreachable, Refused, TimedOut: after the outcomes of all images that were begun.
        """
        outcome = self._portal.call(_next(self._run))
        if outcome is None:
            raise StopIteration
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """Begin no more and cancel what is under way; outcomes that are there can be read.

        Doesn't wait, so a signal handler may call it. The server finishes what it accepted.
        """
        self._portal.soon(self._run.stop)

    def close(self) -> None:
        """End the work. What the server has accepted goes on there. Idempotent."""
        if self._finalizer.detach() and self._portal.alive:
            self._portal.call(self._run.aclose())


async def _next(run: Run) -> Outcome | None:
    # StopAsyncIteration doesn't pass through a future as itself.
    return await anext(run, None)


def _result(future: Future[_T], timeout_s: float | None) -> _T:
    """Wait in slices: a signal that comes just before a wait doesn't end the wait.

    Python runs the handler once the main thread is back from the lock, so one long wait for
    an answer that is late would hold back Ctrl-C as long.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        done, _ = wait([future], max(0.0, min(left_s, SIGNAL_CHECK_S)))
        if done or left_s <= SIGNAL_CHECK_S:
            return future.result(0)


class _Portal:
    """An event loop in a daemon thread, and calls into it that wait for their result."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="lookout-client", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True until `stop`."""
        return self._thread.is_alive() and not self._loop.is_closed()

    def call(self, work: Coroutine[Any, Any, _T], timeout_s: float | None = None) -> _T:
        """Run it in the loop; its result or exception. An interrupt cancels it."""
        if not self.alive:
            work.close()
            raise BadInput("this client is closed; make another Lookout")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return _result(future, timeout_s)
        except BaseException:
            future.cancel()
            raise

    def begin(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run it in the loop some time; nobody waits. For the garbage collector."""
        self.soon(lambda: self._loop.create_task(work()))

    def soon(self, work: Callable[[], object]) -> None:
        """Call it in the loop; nobody waits."""
        if self.alive:
            self._loop.call_soon_threadsafe(work)

    def stop(self, lookout: AsyncLookout) -> None:
        """Close the client, end loop and thread."""
        try:
            self.call(lookout.aclose(), CLOSE_TIMEOUT_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_TIMEOUT_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()
