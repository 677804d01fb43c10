"""Many images at once: bounded work, results in the order that was asked for.

Owns the tasks of one call. Promises one outcome for every image that was begun,
and that no more than `concurrency` images are under way and `window` of them
unread, however many there are. Leaves each image to the coroutine that it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count

from client.errors import ClientError, FailedImage
from client.job import Job, Result
from client.sources import Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image: a job with a result, or an error.

    `index` counts the images of the call from 0; `image` is the path, URL or name; `job` is
    what the server last said of it, also beside an error; `tries` counts requests.
    """

    index: int
    image: str
    job: Job | None
    error: ClientError | None
    tries: int

    @property
    def ok(self) -> bool:
        """True if there is a result."""
        return self.error is None

    @property
    def result(self) -> Result:
        """The result.

        Raises:
            ClientError: the error, if there is none.
        """
        if self.error is not None:
            raise self.error
        assert self.job is not None and self.job.result is not None
        return self.job.result


class Run:
    """The outcomes of one call, as an async iterator; `aclose` ends the work.

    After the last outcome it raises what ended the call early, if something did. Iterate
    from one task.
    """

    def __init__(
        self,
        images: Iterator[Source],
        one: Callable[[int, Source], Awaitable[Outcome]],
        *,
        concurrency: int,
        window: int,
        in_order: bool,
        on_result: Callable[[Outcome], object] | None,
    ) -> None:
        self._images = images
        self._one = one
        self._in_order = in_order
        self._on_result = on_result
        self._slots = asyncio.Semaphore(concurrency)
        self._room = asyncio.Semaphore(max(window, concurrency))
        self._ended: dict[int, Outcome] = {}
        self._next = 0
        self._news = asyncio.Event()
        self._early: BaseException | None = None
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeding = asyncio.create_task(self._feed())
        self._feeding.add_done_callback(lambda _: self._news.set())

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome.

        Raises:
            Unreachable, Refused, TimedOut: after the outcomes of all images that were begun.
        """
        while True:
            if (outcome := self._take()) is not None:
                return outcome
            if self._at_end():
                if (early := self._early) is not None:
                    self._early = None
                    raise early
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()

    def stop(self) -> None:
        """Cancel what is under way; what has ended can still be read. Idempotent.

        Images whose work is cancelled have no outcome. The server finishes what it accepted.
        """
        self._stopping = True
        for task in [self._feeding, *self._tasks]:
            task.cancel()

    async def aclose(self) -> None:
        """`stop`, and wait until nothing is under way any more. Idempotent."""
        self.stop()
        await asyncio.gather(self._feeding, *self._tasks, return_exceptions=True)

    def _take(self) -> Outcome | None:
        if not self._ended:
            return None
        index = next(iter(self._ended))
        if self._in_order:
            # Only a cancelled image leaves a gap, and then nothing comes to close it.
            index = min(self._ended) if self._at_end() else self._next
        outcome = self._ended.pop(index, None)
        if outcome is not None:
            self._next += 1
            self._room.release()
        return outcome

    def _at_end(self) -> bool:
        return self._feeding.done() and not self._tasks

    async def _feed(self) -> None:
        try:
            for index in count():
                await self._room.acquire()
                await self._slots.acquire()
                if self._stopping:
                    return
                # Walking a folder blocks; so may an iterator of the caller's.
                image = await asyncio.to_thread(next, self._images, None)
                if image is None or self._stopping:
                    return
                task = asyncio.create_task(self._carry(index, image))
                self._tasks.add(task)
                task.add_done_callback(self._settled)
        except Exception as fault:  # of the caller's own iterator: it is raised to the caller
            self._stop(fault)

    async def _carry(self, index: int, image: Source) -> None:
        outcome = await self._one(index, image)
        self._ended[index] = outcome
        if outcome.error is not None and not isinstance(outcome.error, FailedImage):
            self._stop(outcome.error)
        if self._on_result is not None:
            self._on_result(outcome)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._stop(fault)
        self._news.set()

    def _stop(self, cause: BaseException) -> None:
        """Begin no more images; the first cause is the one that is told."""
        self._stopping = True
        self._early = self._early or cause
