"""Jobs as people see them: a stored row, with what only memory knows laid over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from master.core.names import job_id, rfc3339, stamp, submission_id
from master.scheduler import Scheduler
from master.states import JobState
from master.store.base import JobEnd, JobRow
from wire.messages import Fault, Guess, JobView

_GUESSES = msgspec.json.Decoder(list[Guess])
_TIMINGS = msgspec.json.Decoder(dict[str, float])


class Views:
    """Builds `JobView`s.

    An outcome that is decided but not yet durable is shown as `leased`: nobody
    is told what a crash could still take back.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        worker_name: Callable[[str], str],
        to_wall: Callable[[float], float],
    ) -> None:
        self._scheduler = scheduler
        self._worker_name = worker_name
        self._to_wall = to_wall

    def jobs(self, rows: Iterable[JobRow]) -> list[JobView]:
        """Views of rows, in their order."""
        return [self.job(row) for row in rows]

    def state(self, row: JobRow) -> JobState:
        """The state to show: stored if terminal, else what the scheduler knows."""
        if row.state is not None:
            return row.state
        live = self._scheduler.state(row.job)
        return live[0] if live else JobState.LEASED

    def job(self, row: JobRow) -> JobView:
        """One view."""
        return self._open(row) if row.state is None else self._ended(row, row.state)

    def _open(self, row: JobRow) -> JobView:
        live = self._scheduler.state(row.job)
        state, attempts, worker, started = live or (JobState.LEASED, row.attempts, None, None)
        return JobView(
            id=job_id(row.job),
            submission=submission_id(row.submission),
            name=row.name,
            state=state.value,
            submitted_at=stamp(row.submitted_at),
            started_at=rfc3339(self._to_wall(started) if started is not None else None),
            attempts=attempts,
            worker=self._worker_name(worker) if worker else None,
            size_bytes=row.size_bytes,
            media_type=row.media_type,
        )

    def _ended(self, row: JobRow, state: JobState) -> JobView:
        error = Fault(code=row.error_code, message=row.error_message) if row.error_code else None
        return JobView(
            id=job_id(row.job),
            submission=submission_id(row.submission),
            name=row.name,
            state=state.value,
            submitted_at=stamp(row.submitted_at),
            started_at=rfc3339(row.started_at),
            finished_at=rfc3339(row.finished_at),
            attempts=row.attempts,
            worker=row.worker,
            model=row.model,
            size_bytes=row.size_bytes,
            media_type=row.media_type,
            top5=_GUESSES.decode(row.top5) if row.top5 else [],
            timings_ms=_TIMINGS.decode(row.timings) if row.timings else {},
            error=error,
        )

    def live(self, job: int, accepted: JobView) -> JobView:
        """A job without a durable outcome, from the view that it was accepted with."""
        live = self._scheduler.state(job)
        state, attempts, worker, started = live or (JobState.LEASED, 0, None, None)
        if state is JobState.QUEUED and not attempts:
            return accepted
        return msgspec.structs.replace(
            accepted,
            state=state.value,
            started_at=rfc3339(self._to_wall(started) if started is not None else None),
            attempts=attempts,
            worker=self._worker_name(worker) if worker else None,
        )

    @staticmethod
    def outcome(accepted: JobView, end: JobEnd) -> JobView:
        """A job with its durable outcome, from the view that it was accepted with."""
        error = Fault(code=end.error_code, message=end.error_message) if end.error_code else None
        return msgspec.structs.replace(
            accepted,
            state=end.state.value,
            started_at=rfc3339(end.started_at),
            finished_at=rfc3339(end.finished_at),
            attempts=end.attempts,
            worker=end.worker,
            model=end.model,
            top5=_GUESSES.decode(end.top5) if end.top5 else [],
            timings_ms=_TIMINGS.decode(end.timings) if end.timings else {},
            error=error,
        )
