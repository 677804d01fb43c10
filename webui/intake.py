"""Hand images to the core as one submission, in parts of bounded size.

The submission stays open until the last part is durable; whoever fails before
that abandons it, so that a refused request leaves no jobs behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Coroutine
from typing import Any

from webui.config import Limits
from webui.core import Core
from webui.exchange import Budget
from webui.problems import Problem
from wire import messages

log = logging.getLogger("webui.intake")

# The event loop holds tasks weakly: those that nobody awaits are kept here.
_giving_up: set[asyncio.Future[None]] = set()


class Intake:
    """One submission on its way. Use as an async context manager."""

    def __init__(
        self,
        core: Core,
        limits: Limits,
        budget: Budget,
        *,
        key: str | None,
        timeout_s: float | None,
        patient: bool = False,
    ) -> None:
        self._core = core
        self._limits = limits
        self._budget = budget
        self._key = key
        self._timeout_s = timeout_s
        self._patient = patient
        self._digest = hashlib.sha256(repr(timeout_s).encode()) if key else None
        self._waiting: list[messages.Upload] = []
        self._waiting_bytes = 0
        self._sent_bytes = 0
        self._sending: asyncio.Task[messages.Submitted] | None = None
        self._submission: str | None = None
        self._jobs: list[messages.JobView] = []
        self._count = 0
        self._closed = False
        self._last_sent = False

    async def __aenter__(self) -> Intake:
        return self

    async def __aexit__(self, kind: object, value: object, trace: object) -> None:
        self._budget.give(self._waiting_bytes)
        self._waiting_bytes = 0
        if self._sending is None:
            self._budget.give(self._sent_bytes)
            self._sent_bytes = 0
        if self._closed or (self._sending is None and self._submission is None):
            return
        # Whoever failed gets its answer at once; the core is told meanwhile.
        giving_up = asyncio.ensure_future(self._give_up())
        _giving_up.add(giving_up)
        giving_up.add_done_callback(_giving_up.discard)

    async def add(self, image: messages.Upload) -> None:
        """Take one image; sends a part when enough have gathered.

        Raises:
            Problem: the core refused, or a bound is reached.
        """
        self._count += 1
        if self._count > self._limits.request_images:
            raise Problem(
                "too_many_images", f"at most {self._limits.request_images} images a request"
            )
        if self._is_full(len(image.data)):
            await self._collect()
            self._send(last=False)
        self._budget.take(len(image.data))
        self._waiting_bytes += len(image.data)
        self._waiting.append(image)
        if self._digest is not None:
            await self._hash(image)

    async def finish(self, digest: str | None = None) -> tuple[str, list[messages.JobView]]:
        """Send the last part; return the submission and its jobs once all are durable.

        `digest` replaces the one over the images (for a URL, whose bytes may change).

        Raises:
            Problem: as `add`.
        """
        await self._collect()
        if self._digest is not None and digest is not None:
            self._digest = hashlib.sha256(digest.encode())
        if self._submission is None:
            # One part, and nothing that could be left open: no task of its own.
            self._keep(await self._ask(last=True))
        else:
            self._send(last=True)
            await self._collect()
        self._closed = True
        assert self._submission is not None
        return self._submission, self._jobs

    def _is_full(self, next_bytes: int) -> bool:
        if not self._waiting:
            return False
        return (
            self._waiting_bytes + next_bytes > self._limits.part_bytes
            or len(self._waiting) >= self._limits.part_images
        )

    def _send(self, *, last: bool) -> None:
        self._sending = asyncio.ensure_future(self._ask(last=last))

    def _ask(self, *, last: bool) -> Coroutine[Any, Any, messages.Submitted]:
        message = messages.Submit(
            request=0,
            images=self._waiting,
            submission=self._submission,
            last=last,
            key=self._key if self._submission is None else None,
            digest=self._digest.hexdigest() if last and self._digest else None,
            timeout_s=self._timeout_s,
            patient=self._patient,
        )
        self._last_sent = last
        self._sent_bytes, self._waiting_bytes = self._waiting_bytes, 0
        self._waiting = []
        return self._core.ask(message, messages.Submitted, self._limits.core_submit_s)

    def _keep(self, submitted: messages.Submitted) -> None:
        if submitted.replayed:
            self._jobs = []
        self._submission = submitted.submission
        self._jobs.extend(submitted.jobs)

    async def _collect(self) -> None:
        """Wait for the part under way: one at a time, while the next is being read."""
        if self._sending is None:
            return
        sending = self._sending
        try:
            # Shielded: when the caller is cancelled, the part is still on its way,
            # and only its answer says which submission to abandon.
            submitted = await asyncio.shield(sending)
        finally:
            if sending.done():
                self._sending = None
                self._budget.give(self._sent_bytes)
                self._sent_bytes = 0
        self._keep(submitted)

    async def _hash(self, image: messages.Upload) -> None:
        assert self._digest is not None
        head = f"{image.name}\0{image.media_type}\0{len(image.data)}\0".encode()
        self._digest.update(head)
        # hashlib lets the GIL go for large data; a thread keeps the event loop free.
        if len(image.data) > 2**18:
            await asyncio.to_thread(self._digest.update, image.data)
        else:
            self._digest.update(image.data)

    async def _give_up(self) -> None:
        try:
            await self._collect()
            if self._submission is None or self._last_sent:
                return
            message = messages.Abandon(request=0, submission=self._submission)
            await self._core.ask(message, messages.Done, self._limits.core_call_s)
        except Problem as problem:
            # The core cancels it by itself when the connection ends.
            log.warning("submission %s not abandoned: %s", self._submission, problem.detail)
