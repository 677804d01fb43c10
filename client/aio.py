"""The client for asyncio programs: `AsyncLookout`."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import weakref
from collections.abc import Callable, Iterable
from typing import Self

from client.config import CONCURRENCY, CONCURRENCY_MAX, Clock, Limits
from client.errors import BadInput, ClientError
from client.job import Job
from client.journey import Call, Journey, Retry
from client.run import Outcome, Run
from client.sources import Data, File, Frames, ImageLike, Source, Unlisted, Url, sources
from client.transport import Transport, base_url

_ONE = (str, os.PathLike, bytes, File, Url, Data, Unlisted, Frames)


def _nothing(_: object) -> None:
    pass


class AsyncLookout:
    """A Lookout server, at `url`. Use as an async context manager, in one event loop.

    Raises:
        BadInput: `url` is no http or https URL.
    """

    def __init__(
        self, url: str, *, limits: Limits | None = None, clock: Clock | None = None
    ) -> None:
        self.url = base_url(url)
        self.limits = limits or Limits()
        self._clock = clock or Clock()
        self._transport = Transport(self.url, self.limits)
        self._runs: weakref.WeakSet[Run] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End every call and close the connections."""
        for run in list(self._runs):
            await run.aclose()
        await self._transport.aclose()

    async def classify(
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
    ) -> Run:
        """Classify images; their outcomes, as they come or (`in_order`) as they were given.

        `images` is one or many of: a path, a folder (its images; `recursive`: and those of
        its folders), an http or https URL (which the server fetches), bytes, `Data`, or `Video`.
        It is read as the work goes on, from another thread. `deadline_s` is for the whole
        call, `concurrency` the number of images under way. `on_result` is told of each
        outcome when the image has ended, `on_retry` of each try that will be repeated,
        `on_wait` of a job that has not ended within one wait; all in the event loop.

        Raises:
            BadInput: `concurrency` or `deadline_s` is outside its limits.
        """
        check(concurrency, deadline_s)
        many = [images] if isinstance(images, _ONE) else images
        now = self._clock.now()
        deadline = None if deadline_s is None else now + deadline_s
        call = Call(
            self.url,
            self.limits,
            self._clock,
            deadline,
            now,
            on_retry=on_retry or _nothing,
            on_wait=on_wait or _nothing,
        )
        run = Run(
            sources(many, recursive=recursive),
            Carrier(call, self._transport, self.limits),
            concurrency=concurrency,
            window=concurrency * self.limits.window,
            in_order=in_order,
            on_result=on_result,
        )
        self._runs.add(run)
        return run


class Carrier:
    """Takes one image of a call from its source to its outcome."""

    def __init__(self, call: Call, transport: Transport, limits: Limits) -> None:
        self._call = call
        self._transport = transport
        self._limits = limits
        # Nobody else's keys may meet ours: 128 random bits, then the image's number.
        self._key = secrets.token_hex(16)

    async def __call__(self, index: int, image: Source) -> Outcome:
        """The outcome; every `ClientError` is one."""
        key = f"{self._key}-{index}"
        journey = Journey(self._call, self._transport, image.label, key)
        error: ClientError | None = None
        try:
            upload = await asyncio.to_thread(image.read, self._limits.image_bytes)
            await journey.travel(upload)
        except ClientError as failed:
            error = failed
        return Outcome(index, image.label, journey.job, error, journey.tries)


def check(concurrency: int, deadline_s: float | None) -> None:
    """Refuse what no call can do.

    Raises:
        BadInput: with the value and the limits.
    """
    if not 1 <= concurrency <= CONCURRENCY_MAX:
        raise BadInput(f"concurrency {concurrency}: give 1 to {CONCURRENCY_MAX}")
    if deadline_s is not None and not (0 < deadline_s < math.inf):
        raise BadInput(f"deadline {deadline_s}: give seconds above 0, or none")
