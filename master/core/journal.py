"""Outcomes on their way to disk, and what happens once they are there.

The content of a result waits here while the scheduler decides about it. An
outcome is told (to the worker, to people, to waiting requests) only after the
store says that it is durable; until then the job still looks `leased`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from master.core.clock import Clock
from master.core.durable import Durable
from master.core.names import job_number
from master.logs import fields
from master.scheduler.effects import AttemptEnded, Finish
from master.store.base import AttemptEnd, JobEnd, JobStore
from master.store.write import Write
from wire.messages import Result

log = logging.getLogger("lookout.core")

QUEUED = ("queue", "wait")
"""Timings of a result that are waiting: for a thread that decodes, and for the engine."""


class Ended(msgspec.Struct, frozen=True):
    """One durable outcome, for everybody who waits for it.

    `queued_s` is for how long the worker says that the image waited there.
    """

    end: JobEnd
    connection: str | None
    queued_s: float = 0.0


class Journal:
    """Writes outcomes and the audit of attempts."""

    def __init__(
        self,
        store: JobStore,
        durable: Durable,
        clock: Clock,
        worker_name: Callable[[str], str],
        on_ended: Callable[[Ended], None],
    ) -> None:
        self._store = store
        self._durable = durable
        self._clock = clock
        self._worker_name = worker_name
        self._on_ended = on_ended
        self._contents: dict[tuple[int, int], Result] = {}

    def hold(self, result: Result) -> None:
        """Keep the content of a result until the scheduler has decided."""
        self._contents[(job_number(result.job), result.token)] = result

    def release(self, job: int, token: int) -> bool:
        """Drop a held content; False if `finish` has taken it."""
        return self._contents.pop((job, token), None) is not None

    def finish(self, effect: Finish) -> None:
        """Write the outcome; `on_ended` hears of it once it is durable."""
        result = None
        if effect.token is not None:
            result = self._contents.pop((effect.job, effect.token), None)
        end = self._end(effect, result)
        ended = Ended(end, effect.worker, _queued_s(result) if result else 0.0)
        self._durable.then(self._store.finish(end), lambda done: self._finished(ended, done))

    def _finished(self, ended: Ended, done: Write[bool]) -> None:
        end = ended.end
        error = done.exception()
        if error is not None:
            # The store retries what can be retried; what comes here is a bug or a dying disk.
            # The job stays open on disk and is done again after a restart: never lost.
            log.error(**fields("outcome_not_written", job=end.job, error=repr(error)))
            return
        if not done.result():
            log.error(**fields("second_outcome_refused", job=end.job, state=end.state))
            return
        self._on_ended(ended)

    def _end(self, effect: Finish, result: Result | None) -> JobEnd:
        started = self._clock.to_wall(effect.started) if effect.started is not None else None
        return JobEnd(
            job=effect.job,
            state=effect.state,
            attempts=effect.attempts,
            finished_at=self._clock.wall(),
            started_at=started,
            worker=self._worker_name(effect.worker) if effect.worker else None,
            model=result.model if result else None,
            token=effect.token,
            top5=msgspec.json.encode(result.top5) if result and result.top5 else None,
            timings=msgspec.json.encode(result.timings_ms) if result else None,
            error_code=effect.error_code,
            error_message=effect.error_message,
        )

    def attempt(self, effect: AttemptEnded) -> None:
        """Append to the audit of attempts."""
        to_wall = self._clock.to_wall
        row = AttemptEnd(
            job=effect.job,
            token=effect.token,
            worker=self._worker_name(effect.worker),
            outcome=effect.outcome,
            granted_at=to_wall(effect.granted),
            started_at=to_wall(effect.started) if effect.started is not None else None,
            ended_at=self._clock.wall(),
            blamed=effect.blamed,
            error_code=effect.error_code,
            error_message=effect.error_message,
        )
        self._durable.then(self._store.record(row), _log_failure)


def _queued_s(result: Result) -> float:
    return sum(result.timings_ms.get(name, 0.0) for name in QUEUED) / 1000.0


def _log_failure(done: Write[None]) -> None:
    error = done.exception()
    if error is not None:
        log.error(**fields("attempt_not_written", error=repr(error)))
