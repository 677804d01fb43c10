"""From a grant to a frame on the worker's connection: fetch the image, send it.

Images come from the window in memory or from disk through a small pool, so a
slow disk delays a dispatch but never the loop. Grants that miss the window are read
together, and with them the jobs that are next in the queue: a read of its own per job
cost 0.2 ms of CPU, and its worker idled meanwhile. A lease that is revoked while its
image is being read is not sent at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor

from master.core.names import job_id
from master.core.window import AHEAD_JOBS_MAX, Window
from master.core.workers import WorkerSession
from master.logs import fields
from master.scheduler.effects import Grant, Revoke
from master.scheduler.events import Event, ResultArrived
from master.store.base import JobStore
from wire.errors import EnvironmentFault, LookoutError
from wire.messages import Assign, Cancel

log = logging.getLogger("lookout.core")

AHEAD_BYTES_MAX = 8 * 2**20
"""Read ahead of the queue at once, at most."""
AHEAD_JOBS_MIN = 64
"""With fewer of the next jobs in memory, more are read."""


class Dispatch:
    """Sends `Assign` and `Cancel`."""

    def __init__(
        self,
        store: JobStore,
        window: Window,
        pool: Executor,
        sessions: dict[str, WorkerSession],
        feed: Callable[[Event], None],
        queued: Callable[[], Iterable[int]],
        size_of: Callable[[int], int],
    ) -> None:
        self._store = store
        self._window = window
        self._pool = pool
        self._sessions = sessions
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._queued = queued
        self._size_of = size_of
        # Leases whose images are being read, or are about to be; and reads ahead.
        self._reading: set[tuple[int, int]] = set()
        self._wanted: dict[int, list[Grant]] = {}
        self._on_their_way: dict[int, list[Grant]] = {}
        self._asked = False
        self._ahead = 0

    def grant(self, effect: Grant) -> None:
        """Send the job now if its image is in memory, else once it is read."""
        kept = self._window.take(effect.job)
        if kept is not None:
            self._send(effect, *kept)
            self._ahead -= self._ahead > 0
            if self._ahead == AHEAD_JOBS_MIN:
                self._ask()
            return
        self._reading.add((effect.job, effect.token))
        coming = self._on_their_way.get(effect.job)
        if coming is not None:
            coming.append(effect)
        else:
            self._ahead = 0  # what was counted as read ahead was taken another way
            self._wanted.setdefault(effect.job, []).append(effect)
            self._ask()

    def _ask(self) -> None:
        """One read for all that this turn of the loop misses."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._begin_read)

    def _begin_read(self) -> None:
        self._asked = False
        wanted, self._wanted = self._wanted, {}
        ahead = list(self._next_jobs()) if self._ahead <= AHEAD_JOBS_MIN else []
        self._ahead += len(ahead)
        jobs = [*wanted, *(job for job in ahead if job not in wanted)]
        if not jobs:
            return
        self._on_their_way.update(wanted)
        for job in ahead:
            self._on_their_way.setdefault(job, [])
        reading = self._loop.run_in_executor(self._pool, self._store.images, jobs)
        reading.add_done_callback(lambda done: self._read(jobs, done))

    def _next_jobs(self) -> Iterator[int]:
        """What the queue holds next and memory doesn't, within the bounds."""
        room = min(AHEAD_BYTES_MAX, self._window.room_bytes)
        for looked_at, job in enumerate(self._queued()):
            if looked_at >= AHEAD_JOBS_MAX:
                return
            if job in self._window or job in self._on_their_way:
                continue
            room -= self._size_of(job)
            if room < 0:
                return
            yield job

    def revoke(self, effect: Revoke) -> None:
        """Tell the worker, unless it never heard of the lease."""
        if (effect.job, effect.token) in self._reading:
            self._reading.discard((effect.job, effect.token))
            return
        session = self._sessions.get(effect.worker)
        if session is not None:
            job = job_id(effect.job)
            session.send(Cancel(job=job, token=effect.token, reason=effect.reason))

    def _read(
        self,
        jobs: list[int],
        done: asyncio.Future[dict[int, tuple[str, bytes] | EnvironmentFault]],
    ) -> None:
        error = None if done.cancelled() else done.exception()
        found = done.result() if not done.cancelled() and error is None else {}
        gone = EnvironmentFault("image_lost", "the job was removed while it was being read")
        for job in jobs:
            image = found.get(job, error or gone)
            waiting = self._on_their_way.pop(job, [])
            if waiting:
                for effect in waiting:
                    self._hand_over(effect, image)
            elif isinstance(image, tuple) and self._size_of(job):
                self._window.offer(job, *image)

    def _hand_over(self, effect: Grant, image: tuple[str, bytes] | BaseException) -> None:
        wanted = (effect.job, effect.token) in self._reading
        self._reading.discard((effect.job, effect.token))
        if not wanted or effect.worker not in self._sessions:
            return
        if isinstance(image, tuple):
            self._send(effect, *image)
        else:
            self._unreadable(effect, image)

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
