"""The jobs that came last, as people see them, so that waits and events need no SQL.

Most questions are about jobs of a moment ago: a request that waits for its result, the
event stream. Each cost a trip through a thread pool and SQLite (0.3 ms). Holds only
what is durable; whatever isn't here is read from the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from master.core.views import Views
from master.store.base import JobEnd
from wire.messages import JobView


class Recent:
    """Views of at most `jobs_max` accepted jobs, the oldest forgotten first."""

    def __init__(self, views: Views, jobs_max: int) -> None:
        self._views = views
        self._jobs_max = jobs_max
        # Finding a plain dict's first key passes over the places of all that were before it.
        self._accepted: OrderedDict[int, JobView] = OrderedDict()
        self._ended: dict[int, JobEnd | JobView] = {}

    def accepted(self, jobs: Sequence[int], views: Sequence[JobView]) -> None:
        """Jobs became durable; `views` show them as queued."""
        self._accepted.update(zip(jobs, views, strict=True))
        while len(self._accepted) > self._jobs_max:
            oldest, _ = self._accepted.popitem(last=False)
            self._ended.pop(oldest, None)

    def ended(self, end: JobEnd) -> None:
        """An outcome became durable."""
        if end.job in self._accepted:
            self._ended[end.job] = end

    def forget(self, jobs: Iterable[int]) -> None:
        """Jobs were removed."""
        for job in jobs:
            self._accepted.pop(job, None)
            self._ended.pop(job, None)

    def view(self, job: int) -> JobView | None:
        """The job as it is now; None if it isn't here."""
        accepted = self._accepted.get(job)
        if accepted is None:
            return None
        end = self._ended.get(job)
        if end is None:
            return self._views.live(job, accepted)
        if isinstance(end, JobEnd):
            # Made when somebody asks, and kept: a wait and an event often ask both.
            end = self._ended[job] = self._views.outcome(accepted, end)
        return end

    def all_of(self, jobs: Sequence[int]) -> list[JobView] | None:
        """Views of these jobs in this order; None unless every one is here."""
        found: list[JobView] = []
        for job in jobs:
            view = self.view(job)
            if view is None:
                return None
            found.append(view)
        return found
