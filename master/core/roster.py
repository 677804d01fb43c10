"""The workers that are connected, and the last ones that left, for people."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from master.core.names import stamp
from master.core.workers import WorkerSession
from master.scheduler import Scheduler
from wire.messages import WorkerView


class Roster:
    """Sessions by key, names by key, and views of both.

    A key is a name with the number of the connection: `lab3#17`. The name of a
    key is known as long as anything still speaks of it, so it is part of it.
    """

    def __init__(self, scheduler: Scheduler, now: Callable[[], float], gone_kept_max: int) -> None:
        self.sessions: dict[str, WorkerSession] = {}
        self._scheduler = scheduler
        self._now = now
        self._gone: deque[WorkerView] = deque(maxlen=gone_kept_max)
        self._number = 0

    def key_for(self, name: str) -> str:
        """A key for a new connection of the worker `name`."""
        self._number += 1
        return f"{name}#{self._number}"

    @staticmethod
    def name_of(key: str) -> str:
        """The worker's name that a key carries."""
        return key.rpartition("#")[0]

    def named(self, name: str) -> list[WorkerSession]:
        """The connected workers of that name."""
        return [session for session in self.sessions.values() if session.name == name]

    def add(self, session: WorkerSession) -> None:
        """A worker joined."""
        self.sessions[session.key] = session
        kept = [view for view in self._gone if view.name != session.name]
        self._gone = deque(kept, maxlen=self._gone.maxlen)

    def remove(self, session: WorkerSession) -> None:
        """A worker left; it is shown as dead for a while. Call before the scheduler forgets it."""
        view = self.view(session)
        left = self.sessions.pop(session.key, None) is not None
        if left and not self.named(session.name):
            gone = msgspec.structs.replace(
                view, liveness="dead", ready=False, held=0, executing=0, rtt_ms=None
            )
            self._gone.appendleft(gone)

    def views(self) -> list[WorkerView]:
        """Connected workers by name, then those that left, latest first."""
        connected = sorted(self.sessions.values(), key=lambda session: session.name)
        return [self.view(session) for session in connected] + list(self._gone)

    def view(self, session: WorkerSession) -> WorkerView:
        """One worker as the API shows it."""
        stats = self._scheduler.worker_stats(session.key, self._now())
        return WorkerView(
            id=session.name,
            name=session.name,
            incarnation=session.incarnation,
            address=session.address,
            liveness=stats.liveness.value,
            admission=stats.admission.value,
            ready=stats.ready,
            engine=session.engine,
            model=session.model,
            software=session.software,
            slots=stats.slots,
            held=stats.held,
            executing=stats.executing,
            rate_per_s=round(stats.rate_per_s, 3),
            completed=stats.completed,
            errored=stats.errored,
            stale=stats.stale,
            blamed_deaths=stats.blamed_deaths,
            phi=round(min(stats.phi, 1000.0), 2),
            rtt_ms=session.rtt_ms(),
            connected_at=stamp(session.connected_at),
            fault=session.fault,
            streams=len(session.streams),
            retransmitted=session.retransmitted(),
        )
