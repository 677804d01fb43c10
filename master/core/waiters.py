"""Requests that wait for jobs to end: `Prefer: wait` and `?wait=` end here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Waiter:
    """One waiting request: the jobs still open, and what to do when none is or time is up."""

    open_jobs: set[int]
    done: Callable[[], None]
    timer: asyncio.TimerHandle | None = None


class Waiters:
    """Waiting requests by job. Bounded by `waiters_max`: past it a wait ends at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, waiters_max: int) -> None:
        self._loop = loop
        self._max = waiters_max
        self._by_job: dict[int, list[Waiter]] = {}
        self.waiting = 0

    def wait(self, open_jobs: set[int], timeout_s: float, done: Callable[[], None]) -> Waiter:
        """Call `done` once when every job in `open_jobs` has ended, or after `timeout_s`."""
        waiter = Waiter(open_jobs, done)
        if not open_jobs or timeout_s <= 0 or self.waiting >= self._max:
            done()
            return waiter
        self.waiting += 1
        for job in open_jobs:
            self._by_job.setdefault(job, []).append(waiter)
        waiter.timer = self._loop.call_later(timeout_s, self._finish, waiter)
        return waiter

    def ended(self, job: int) -> None:
        """A job's outcome is durable."""
        for waiter in self._by_job.pop(job, ()):
            waiter.open_jobs.discard(job)
            if not waiter.open_jobs:
                self._finish(waiter)

    def forget(self, waiter: Waiter) -> None:
        """The asker has gone."""
        if waiter.timer is not None:
            self._unlink(waiter)

    def _finish(self, waiter: Waiter) -> None:
        self._unlink(waiter)
        waiter.done()

    def _unlink(self, waiter: Waiter) -> None:
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None
            self.waiting -= 1
        for job in waiter.open_jobs:
            others = self._by_job.get(job)
            if others is not None:
                others.remove(waiter)
                if not others:
                    del self._by_job[job]
