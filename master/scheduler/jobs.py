"""The jobs that have no outcome yet: where each is, and what is known of it.

A fresh queued job is only a mark in the queue; a `JobRecord` exists once a job
was granted, or came from an earlier life with a history. Promises that a job
is in exactly one of queued, leased and backoff, and that each move is one of
`states.TRANSITIONS`. Leaves to others when to move, and telling about it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from master.scheduler.deadlines import Deadlines
from master.scheduler.leases import Lease
from master.scheduler.queue import FreshJobs, ReturnedJobs
from master.states import JobState, check_transition


@dataclass(slots=True, eq=False)
class JobRecord:
    """What is remembered of a job that was granted at least once.

    `attempts` counts attempts that began and failed. `blamed` names the workers
    that died while they executed it, `died_with` the executions that these deaths ended,
    its own among them; `suspected` says that one died, fell
    silent or stood still with it, so that it goes alone from then on. `avoid`
    names workers that failed with it. `tokens` are the last ones granted for
    it, with the name of the worker that each went to.
    """

    job: int
    accepted_at: float
    state: JobState = JobState.QUEUED
    attempts: int = 0
    blamed: tuple[str, ...] = ()
    died_with: int = 0
    suspected: bool = False
    avoid: tuple[str, ...] = ()
    leases: list[Lease] = field(default_factory=list)
    tokens: tuple[tuple[int, str], ...] = ()

    @property
    def primary(self) -> Lease | None:
        """The lease that people are shown: the first one granted of those that live."""
        return self.leases[0] if self.leases else None

    def remember_token(self, lease: Lease, name: str, kept_max: int) -> None:
        """Note that the token was granted for this job, to the worker `name`."""
        self.tokens = (*self.tokens, (lease.token, name))[-kept_max:]

    def avoid_worker(self, name: str) -> None:
        """Prefer other workers from now on."""
        if name not in self.avoid:
            self.avoid = (*self.avoid, name)


class JobTable:
    """Every job without an outcome."""

    def __init__(self) -> None:
        self.fresh = FreshJobs()
        self.returned = ReturnedJobs()
        self.records: dict[int, JobRecord] = {}
        self.deadlines: Deadlines[int] = Deadlines()
        self.backoffs: Deadlines[int] = Deadlines()
        self._leased = 0

    # --- questions ---------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many wait for a worker."""
        return len(self.fresh) + len(self.returned)

    @property
    def leased(self) -> int:
        """How many have a live lease."""
        return self._leased

    def state(self, job: int) -> JobState | None:
        """Where a job is; None once it has its outcome, or if it was never here."""
        record = self.records.get(job)
        if record is not None:
            return record.state
        return JobState.QUEUED if job in self.fresh else None

    def head(self) -> int | None:
        """The queued job that is next: the lowest number."""
        returned, fresh = self.returned.head(), self.fresh.head()
        if returned is None or fresh is None:
            return fresh if returned is None else returned
        return min(returned, fresh)

    def queued_jobs(self) -> Iterator[int]:
        """Queued jobs in order of dispatch."""
        return heapq.merge(self.returned, self.fresh)

    def accepted_at(self, head: int) -> float:
        """When the job at the head of the queue was accepted."""
        record = self.records.get(head)
        return record.accepted_at if record is not None else self.fresh.accepted_at(head)

    # --- moves -------------------------------------------------------------------------

    def accept(self, jobs: Iterable[int], deadline: float | None, now: float) -> int:
        """Queue fresh jobs and say how many. Raises `LocalFault` unless numbers rise."""
        count = 0
        for job in jobs:
            self.fresh.reach(job)
            self.fresh.add(job, now)
            if deadline is not None:
                self.deadlines.set(job, deadline)
            count += 1
        return count

    def recover(self, record: JobRecord) -> None:
        """Queue a job with a history. Raises `LocalFault` unless numbers rise."""
        self.fresh.reach(record.job)
        self.records[record.job] = record
        self.returned.add(record.job)

    def record_of(self, head: int) -> JobRecord:
        """The record of the job at the head of the queue; a fresh job gets one."""
        record = self.records.get(head)
        if record is None:
            record = JobRecord(head, self.fresh.accepted_at(head))
            self.fresh.remove(head)
            self.returned.add(head)
            self.records[head] = record
        return record

    def move(self, record: JobRecord, target: JobState, until: float | None = None) -> None:
        """Move a job; `until` is when its backoff ends. Raises `LocalFault` if it may not."""
        check_transition(record.state, target)
        self._leave(record)
        record.state = target
        if target is JobState.QUEUED:
            self.returned.add(record.job)
        elif target is JobState.LEASED:
            self._leased += 1
        elif until is not None:
            self.backoffs.set(record.job, until)

    def end(self, job: int, target: JobState) -> None:
        """The job has its outcome and is forgotten. Raises `LocalFault` if it isn't here."""
        record = self.records.pop(job, None)
        check_transition(record.state if record else JobState.QUEUED, target)
        self.deadlines.forget(job)
        if record is None:
            self.fresh.remove(job)
        else:
            self._leave(record)

    def _leave(self, record: JobRecord) -> None:
        if record.state is JobState.LEASED:
            self._leased -= 1
        elif record.state is JobState.BACKOFF:
            self.backoffs.forget(record.job)
        else:
            self.returned.remove(record.job)
