"""One write on its way to disk: what the store returns, and resolves once it is durable.

It has the part of `concurrent.futures.Future` that callers here use, at a tenth of
its price: a Future makes a lock and a condition each (10 us with its callback, and a
job has three writes), this makes an event only where a thread really waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

log = logging.getLogger("lookout.store")

T = TypeVar("T")


class Write(Generic[T]):
    """Resolved once, by the writer's thread; asked from any thread.

    Lock-free: a list's `append` and `pop` are atomic, `_done` is set before the
    callbacks are taken out and read after one is put in, so that each is called
    exactly once, by whoever takes it out.
    """

    __slots__ = ("_callbacks", "_done", "_error", "_value")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Write[T]], object]] = []
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it is durable, or has failed."""
        return self._done

    def result(self, timeout_s: float | None = None) -> T:
        """What the write came to; waits for it.

        Raises:
            TimeoutError: not within `timeout_s`. The write's own error, if it failed.
        """
        error = self.exception(timeout_s)
        if error is not None:
            raise error
        value: T = self._value
        return value

    def exception(self, timeout_s: float | None = None) -> BaseException | None:
        """Why it failed, or None; waits for it. Raises `TimeoutError` like `result`."""
        if not self._done:
            reached = threading.Event()
            self.add_done_callback(lambda _: reached.set())
            if not reached.wait(timeout_s):
                raise TimeoutError(f"the write was not durable after {timeout_s} s")
        return self._error

    def add_done_callback(self, callback: Callable[[Write[T]], object]) -> None:
        """Call `callback(self)` in the writer's thread, or here if it is done already."""
        self._callbacks.append(callback)
        if self._done:
            self._tell()

    def set_result(self, value: T) -> None:
        """It is durable."""
        self._value = value
        self._done = True
        if self._callbacks:
            self._tell()

    def set_exception(self, error: BaseException) -> None:
        """It failed, and nothing of it is kept."""
        self._error = error
        self._done = True
        if self._callbacks:
            self._tell()

    def _tell(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # another thread took the last one
                return
            try:
                callback(self)
            except Exception:  # somebody else's code at the edge of the thread
                log.exception("store_callback_failed")
