"""From the store's writer thread back to the event loop, one wake-up per group commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from master.store.write import Write

T = TypeVar("T")


class Durable:
    """Runs callbacks on the loop, in order, after their writes became durable."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[tuple[Write[Any], Callable[[Write[Any]], None]]] = deque()
        self._woken = False
        self._waiting = 0
        self._asked = 0
        self._marks: deque[tuple[int, asyncio.Event]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()

    def then(self, future: Write[T], callback: Callable[[Write[T]], None]) -> None:
        """Call `callback(future)` on the loop once the future is resolved."""
        if not self._waiting:
            self._idle.clear()
        self._waiting += 1
        self._asked += 1
        future.add_done_callback(lambda done: self._push(done, callback))

    def _push(self, future: Write[Any], callback: Callable[[Write[Any]], None]) -> None:
        # Runs in the writer thread. deque.append is atomic; a wake-up too many is harmless,
        # a missing one is not: the flag is set before the call and cleared before reading.
        self._done.append((future, callback))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._woken = False
        while self._done:
            future, callback = self._done.popleft()
            self._waiting -= 1
            callback(future)
        # Writes end in the order in which they were asked for.
        while self._marks and self._marks[0][0] <= self._asked - self._waiting:
            self._marks.popleft()[1].set()
        if not self._waiting:
            self._idle.set()

    async def result(self, write: Write[T]) -> T:
        """Wait for one write; raises what it failed with."""
        done: asyncio.Future[None] = self._loop.create_future()

        def resolved(_: Write[T]) -> None:
            if not done.done():
                done.set_result(None)

        self.then(write, resolved)
        await done
        return write.result(0)

    async def idle_after_now(self) -> None:
        """Wait until what was asked for up to now is durable, whatever is asked for later."""
        if not self._waiting:
            return
        reached = asyncio.Event()
        self._marks.append((self._asked, reached))
        await reached.wait()

    async def idle(self) -> None:
        """Wait until nothing asked for is still on its way to disk."""
        await self._idle.wait()
