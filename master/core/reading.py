"""Reads for people: pages, images, counts. SQL runs in a small pool, never on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from master.core.intake import Refusal
from master.core.names import job_number, stamp, submission_number
from master.core.recent import Recent
from master.core.views import Views
from master.scheduler import Scheduler
from master.states import TERMINAL, JobState
from master.store.base import JobRow, JobStore
from wire.errors import EnvironmentFault
from wire.messages import GetImage, GetSubmission, Image, Jobs, JobView, ListJobs, Submission

T = TypeVar("T")
PAGES_READ_MAX = 50


class Reading:
    """Answers questions about jobs, with live states laid over stored rows."""

    def __init__(
        self, store: JobStore, scheduler: Scheduler, views: Views, recent: Recent, pool: Executor
    ) -> None:
        self._recent = recent
        self._store = store
        self._scheduler = scheduler
        self._views = views
        self._pool = pool

    async def run(self, function: Callable[[], T]) -> T:
        """Call a blocking read in the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def jobs(self, numbers: list[int]) -> list[JobView]:
        """Views of these jobs, in this order; unknown numbers are left out."""
        known = self.known(numbers)
        if known is not None:
            return known
        rows = await self.run(lambda: self._store.jobs(numbers))
        return self._views.jobs(rows)

    def known(self, numbers: list[int]) -> list[JobView] | None:
        """As `jobs`, at once from memory; None where one of them isn't there."""
        return self._recent.all_of(numbers)

    async def image(self, message: GetImage) -> Image:
        """The upload of a job."""
        number = job_number(message.job)
        try:
            row, image = await self.run(lambda: self._store.image(number))
        except KeyError:
            raise Refusal("not_found", f"there is no job {message.job}") from None
        except EnvironmentFault as fault:
            raise Refusal(fault.code, fault.reason) from fault
        return Image(request=message.request, name=row.name, media_type=row.media_type, data=image)

    async def submission(self, message: GetSubmission) -> Submission:
        """Counts by state; the live part of `open` is told apart from memory."""
        number = submission_number(message.submission)
        row = await self.run(lambda: self._store.submission(number))
        if row is None:
            raise Refusal("not_found", f"there is no submission {message.submission}")
        counts = {state.value: 0 for state in JobState}
        counts.update({key: value for key, value in row.counts.items() if key != "open"})
        live = await self._live_rows(number)
        for live_row in live:
            counts[self._views.state(live_row).value] += 1
        counts["queued"] += max(0, row.counts.get("open", 0) - len(live))
        return Submission(
            request=message.request,
            id=message.submission,
            submitted_at=stamp(row.submitted_at),
            total=row.total,
            counts=counts,
        )

    async def _live_rows(self, submission: int) -> list[JobRow]:
        numbers = self._scheduler.live_jobs()
        rows = await self.run(lambda: self._store.jobs(numbers))
        return [row for row in rows if row.submission == submission and row.state is None]

    async def page(self, message: ListJobs) -> Jobs:
        """One page of jobs, newest first. The cursor is the number to read below."""
        before = self._before(message.cursor)
        submission = submission_number(message.submission) if message.submission else None
        wanted = frozenset(JobState(state) for state in message.states)
        found: list[JobRow] = []
        for _ in range(PAGES_READ_MAX):
            rows = await self._rows(wanted, submission, before, message.limit)
            for row in rows:
                if not wanted or self._views.state(row) in wanted:
                    found.append(row)
                before = row.job
                if len(found) == message.limit:
                    break
            if len(found) == message.limit or len(rows) < message.limit:
                break
        more = len(found) == message.limit or len(rows) == message.limit
        cursor = str(before) if more and before is not None else None
        return Jobs(request=message.request, jobs=self._views.jobs(found), cursor=cursor)

    async def _rows(
        self,
        wanted: frozenset[JobState],
        submission: int | None,
        before: int | None,
        limit: int,
    ) -> list[JobRow]:
        ended = sorted(wanted & TERMINAL)
        live = wanted - TERMINAL
        if live and JobState.QUEUED not in live:
            return await self._few_live(ended, submission, before, limit)
        include_open = bool(live) or not wanted
        states = ended if wanted else []
        return await self.run(
            lambda: self._store.page(
                states=states,
                include_open=include_open and bool(wanted),
                submission=submission,
                before=before,
                limit=limit,
            )
        )

    async def _few_live(
        self, ended: list[JobState], submission: int | None, before: int | None, limit: int
    ) -> list[JobRow]:
        """Leased and waiting jobs are few and old: find them from memory, not by scanning."""
        numbers = sorted(self._scheduler.live_jobs(), reverse=True)
        if before is not None:
            numbers = [number for number in numbers if number < before]

        def read() -> list[JobRow]:
            rows = [
                row
                for row in self._store.jobs(numbers)
                if row.state is None and submission in (None, row.submission)
            ]
            if ended:
                rows += self._store.page(
                    states=ended,
                    include_open=False,
                    submission=submission,
                    before=before,
                    limit=limit,
                )
            return sorted(rows, key=lambda row: -row.job)[:limit]

        return await self.run(read)

    @staticmethod
    def _before(cursor: str | None) -> int | None:
        if cursor is None:
            return None
        if not cursor.isdecimal() or len(cursor) > 18:
            raise Refusal("invalid_parameter", f"{cursor!r} is not a cursor that this API gave")
        return int(cursor)
