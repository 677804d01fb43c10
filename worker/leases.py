"""The leases that a worker holds: a queue of those not begun, and those executing.

Owns the rule of who may begin next: in order of arrival, never more than
`executing_max` at once, and a lease marked `alone` with nothing beside it.
"""

from __future__ import annotations

from worker.events import Lease


class Leases:
    """Unstarted leases in order of arrival, and the tokens of the executing ones."""

    def __init__(self, executing_max: int) -> None:
        self._executing_max = executing_max
        self._queue: dict[str, Lease] = {}
        self._executing: dict[str, int] = {}
        self._lone: str | None = None

    @property
    def held(self) -> int:
        """Leases in hand, begun or not."""
        return len(self._queue) + len(self._executing)

    @property
    def executing(self) -> int:
        """Leases begun and not finished."""
        return len(self._executing)

    def is_executing(self, job: str) -> bool:
        """True from `begin_next` until `finish`."""
        return job in self._executing

    def enqueue(self, lease: Lease) -> None:
        """Hold a lease; a newer one for a queued job replaces the older one."""
        self._queue.pop(lease.assign.job, None)
        self._queue[lease.assign.job] = lease

    def drop(self, job: str, token: int) -> bool:
        """Forget an unstarted lease; False if it isn't (or no longer) one."""
        lease = self._queue.get(job)
        if lease is None or lease.assign.token != token:
            return False
        del self._queue[job]
        return True

    def drop_all(self) -> list[Lease]:
        """Forget every unstarted lease, and say which they were."""
        dropped = list(self._queue.values())
        self._queue.clear()
        return dropped

    def begin_next(self) -> Lease | None:
        """Move the first unstarted lease to executing, if the rule allows it now."""
        lease = next(iter(self._queue.values()), None)
        if lease is None or self._lone is not None or self.executing >= self._executing_max:
            return None
        if lease.assign.alone:
            if self._executing:
                return None
            self._lone = lease.assign.job
        del self._queue[lease.assign.job]
        self._executing[lease.assign.job] = lease.assign.token
        return lease

    def renew(self, job: str, token: int) -> None:
        """The executing job will report under this newer token."""
        self._executing[job] = token

    def finish(self, job: str) -> int | None:
        """Forget an executing job and return the token to report under; None if unknown."""
        if self._lone == job:
            self._lone = None
        return self._executing.pop(job, None)
