"""The event stream: what changed, coalesced, numbered, resumable.

A change only marks a job; at each flush the marked jobs are read back from the
store and shown as they are then, so a burst of changes of one job is one event
and no job's text is kept in memory. Event ids are `EPOCH-NUMBER`: after a
restart of the core, or when too much was missed, a `reset` event tells the
subscriber to read everything again.

Listeners that are slow, or many changes, make events fewer and not more: while one has
not read what it was sent, changes gather (a job that moves three times is one event),
for `HOLD_S` at most; whoever is behind then is told `reset` once it reads again. So it
is when more than `DIRTY_JOBS_MAX` jobs changed at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from wire.messages import Event, Events, JobView

FLUSH_JOBS_MAX = 500
DIRTY_JOBS_MAX = 10_000
"""Changed jobs that wait for a flush; beyond, one `reset` says it all."""
UNREAD_BYTES_MAX = 2**20
"""A subscriber with more than this unread is behind."""
HOLD_S = 1.0
FLUSH_MAX_S = 0.5
EVENT_S = 0.0005
"""The pace: after a flush of N events the next comes N times this later, `FLUSH_MAX_S` at most."""
Deliver = Callable[[Events], None]


@dataclass(eq=False, slots=True)
class Subscriber:
    """One open stream. `unread_bytes` tells what it has not read; `behind` gets no events."""

    request: int
    deliver: Deliver
    unread_bytes: Callable[[], int]
    behind: bool = False


class Hub:
    """Fans events out to the subscribed web connections.

    `read_jobs` gives the views of job numbers as they are now. While nobody has
    subscribed since the start nothing is kept at all.
    """

    def __init__(
        self,
        epoch: int,
        events_kept_max: int,
        read_jobs: Callable[[list[int]], Awaitable[list[JobView]]],
    ) -> None:
        self._epoch = epoch
        self._number = 0
        self._kept: deque[Event] = deque(maxlen=events_kept_max)
        self._dirty: dict[int, None] = {}
        self._subscribers: dict[tuple[int, int], Subscriber] = {}
        self._read_jobs = read_jobs
        self._watched = False
        self._too_many = False
        self._held_since: float | None = None
        self.changed = asyncio.Event()

    @property
    def subscribers(self) -> int:
        """How many streams are open."""
        return len(self._subscribers)

    def job_changed(self, job: int) -> None:
        """Mark a job; it is shown at the next flush."""
        if not self._watched:
            return
        if len(self._dirty) >= DIRTY_JOBS_MAX:
            self._dirty.clear()
            self._too_many = True
        self._dirty[job] = None
        self.changed.set()

    def publish(self, kind: str, data: Any) -> None:
        """Send one event of another kind now. `data` is anything that JSON can say."""
        if self._watched:
            self._send([self._event(kind, data)])

    def subscribe(
        self,
        connection: int,
        request: int,
        after: str | None,
        send: Deliver,
        unread_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """Stream to `send` from now on, beginning with what was missed since `after`."""
        self._watched = True
        self._subscribers[(connection, request)] = Subscriber(request, send, unread_bytes)
        missed = self._missed(after)
        if missed:
            send(Events(request=request, events=missed))

    def unsubscribe(self, connection: int) -> None:
        """Forget all streams of a connection that ended."""
        for key in [key for key in self._subscribers if key[0] == connection]:
            del self._subscribers[key]

    async def flush(self) -> None:
        """Read the marked jobs and send them, a bounded number at a time."""
        self.changed.clear()
        if self._too_many:
            self._too_many = False
            self._send([self._event("reset", {})])
        while self._dirty:
            jobs = list(self._dirty)[:FLUSH_JOBS_MAX]
            for job in jobs:
                del self._dirty[job]
            views = await self._read_jobs(jobs)
            self._send([self._event("job", view) for view in views])

    def pause_s(self, shortest_s: float) -> float:
        """How long changes should gather before the next flush."""
        return min(FLUSH_MAX_S, max(shortest_s, EVENT_S * len(self._dirty)))

    def ready(self, now: float) -> bool:
        """Whether to flush: everybody has read, or one was waited for long enough.

        Whoever still is behind then is left out until it has read, and told `reset`.
        """
        slow = [s for s in self._subscribers.values() if s.unread_bytes() > UNREAD_BYTES_MAX]
        waiting = [subscriber for subscriber in slow if not subscriber.behind]
        if not waiting:
            self._held_since = None
            return True
        if self._held_since is None:
            self._held_since = now
        if now - self._held_since < HOLD_S:
            return False
        self._held_since = None
        for subscriber in waiting:
            subscriber.behind = True
        return True

    def _event(self, kind: str, data: Any) -> Event:
        self._number += 1
        return Event(id=f"{self._epoch}-{self._number}", kind=kind, data=msgspec.json.encode(data))

    def _send(self, events: list[Event]) -> None:
        self._kept.extend(events)
        for subscriber in list(self._subscribers.values()):
            if not subscriber.behind:
                subscriber.deliver(Events(request=subscriber.request, events=events))
            elif subscriber.unread_bytes() <= UNREAD_BYTES_MAX // 2:
                subscriber.behind = False
                reset = Events(request=subscriber.request, events=[self._marker()])
                subscriber.deliver(reset)

    def _missed(self, after: str | None) -> list[Event]:
        if after is None:
            return []
        number = self._number_of(after)
        oldest = self._number - len(self._kept)
        if number is None or not oldest <= number <= self._number:
            return [self._marker()]
        return list(self._kept)[number - oldest :]

    def _number_of(self, event_id: str) -> int | None:
        epoch, _, number = event_id.partition("-")
        if epoch != str(self._epoch) or not number.isdecimal():
            return None
        return int(number)

    def _marker(self) -> Event:
        # Carries the newest id, so that the next resume begins from here.
        return Event(id=f"{self._epoch}-{self._number}", kind="reset", data=b"{}")

    def newest(self) -> Iterable[Event]:
        """The events still held, oldest first (for tests and reports)."""
        return tuple(self._kept)
