"""From a grant to a frame on the worker's connection: fetch the image, send it.

Images come from the window in memory or from disk through a small pool, so a
slow disk delays a dispatch but never the loop. A lease that is revoked while
its image is being read is not sent at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from master.core.names import job_id
from master.core.window import Window
from master.core.workers import WorkerSession
from master.logs import fields
from master.scheduler.effects import Grant, Revoke
from master.scheduler.events import Event, ResultArrived
from master.store.base import JobRow, JobStore
from wire.errors import LookoutError
from wire.messages import Assign, Cancel

log = logging.getLogger("lookout.core")


class Dispatch:
    """Sends `Assign` and `Cancel`."""

    def __init__(
        self,
        store: JobStore,
        window: Window,
        pool: Executor,
        sessions: dict[str, WorkerSession],
        feed: Callable[[Event], None],
    ) -> None:
        self._store = store
        self._window = window
        self._pool = pool
        self._sessions = sessions
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._reading: set[tuple[int, int]] = set()

    def grant(self, effect: Grant) -> None:
        """Send the job now if its image is in memory, else once it is read."""
        kept = self._window.take(effect.job)
        if kept is not None:
            self._send(effect, *kept)
            return
        self._reading.add((effect.job, effect.token))
        future = self._loop.run_in_executor(self._pool, self._store.image, effect.job)
        future.add_done_callback(lambda done: self._read(effect, done))

    def revoke(self, effect: Revoke) -> None:
        """Tell the worker, unless it never heard of the lease."""
        if (effect.job, effect.token) in self._reading:
            self._reading.discard((effect.job, effect.token))
            return
        session = self._sessions.get(effect.worker)
        if session is not None:
            job = job_id(effect.job)
            session.send(Cancel(job=job, token=effect.token, reason=effect.reason))

    def _read(self, effect: Grant, done: asyncio.Future[tuple[JobRow, bytes]]) -> None:
        wanted = (effect.job, effect.token) in self._reading
        self._reading.discard((effect.job, effect.token))
        if done.cancelled() or not wanted or effect.worker not in self._sessions:
            return
        error = done.exception()
        if error is None:
            row, image = done.result()
            self._send(effect, row.name, image)
        else:
            self._unreadable(effect, error)

    def _unreadable(self, effect: Grant, error: BaseException) -> None:
        log.error(**fields("image_unreadable", job=effect.job, error=repr(error)))
        reason = error.args[0] if isinstance(error, LookoutError) else repr(error)
        self._feed(
            ResultArrived(
                worker=effect.worker,
                job=effect.job,
                token=effect.token,
                model="",
                fault_code="image_unreadable",
                fault_message=f"the master can't read the image back from its disk: {reason}",
            )
        )

    def _send(self, effect: Grant, name: str, image: bytes) -> None:
        session = self._sessions.get(effect.worker)
        if session is None:
            return
        session.send(
            Assign(
                job=job_id(effect.job),
                token=effect.token,
                attempt=effect.attempt,
                name=name,
                image=image,
                alone=effect.alone,
                timeout_s=effect.timeout_s,
            ),
            effect,
        )
