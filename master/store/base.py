"""`JobStore`: what the core needs of a durable job table, and nothing of how.

Writes are asked for from the core's event loop and never block it: each
returns a future that resolves once the write is durable (fsync of its group
commit). Writes become visible and durable in the order they were asked for.
Reads may run in any thread and see everything durable.

On disk a job is *open* until it has its outcome; `leased`, `backoff` and
`queued` are told apart in the memory of the core, which died with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from master.states import JobState, Outcome
from master.store.write import Write
from wire.errors import EnvironmentFault


class NewJob(msgspec.Struct, frozen=True):
    """One image to accept. `job` was given by the core, larger than all before."""

    job: int
    name: str
    media_type: str
    image: bytes | memoryview


class NewPart(msgspec.Struct, frozen=True):
    """One part of a submission, accepted whole or not at all.

    `submitted_at` and `deadline_at` are wall-clock seconds since the epoch.
    `key` is set with the first part; `digest` and `last` with the last one. `patient`
    says that nobody waits for this write (see `JobStore.be_patient`).
    """

    submission: int
    jobs: Sequence[NewJob]
    submitted_at: float
    deadline_at: float | None
    first: bool
    last: bool
    key: str | None = None
    digest: str | None = None
    patient: bool = False


class JobEnd(msgspec.Struct, frozen=True):
    """The one outcome of a job. `top5` and `timings` are JSON."""

    job: int
    state: JobState
    attempts: int
    finished_at: float
    started_at: float | None = None
    worker: str | None = None
    model: str | None = None
    token: int | None = None
    top5: bytes | None = None
    timings: bytes | None = None
    error_code: str | None = None
    error_message: str = ""


class AttemptEnd(msgspec.Struct, frozen=True):
    """One row of the append-only audit of attempts; times are wall clock."""

    job: int
    token: int
    worker: str
    outcome: Outcome
    granted_at: float
    started_at: float | None
    ended_at: float
    blamed: bool
    error_code: str | None
    error_message: str


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as stored. `state` is None while the job is open."""

    job: int
    submission: int
    name: str
    media_type: str
    size_bytes: int
    submitted_at: float
    deadline_at: float | None
    state: JobState | None
    attempts: int
    started_at: float | None
    finished_at: float | None
    worker: str | None
    model: str | None
    top5: bytes | None
    timings: bytes | None
    error_code: str | None
    error_message: str


@dataclass(frozen=True, slots=True)
class SubmissionRow:
    """A submission, `open` until its last part is durable.

    `counts` has a key per terminal state and `open` for jobs without an outcome.
    """

    submission: int
    submitted_at: float
    open: bool
    total: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What an idempotency key stands for."""

    key: str
    submission: int
    digest: str | None
    open: bool


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job that recovery must put back into the queue.

    `attempts` counts what the audit has of attempts that failed and had begun
    (`errored`; `expired` and `lost` with a start), `blamed` the workers of those
    that were blamed on the job, oldest first.
    """

    job: int
    size_bytes: int
    deadline_at: float | None
    attempts: int
    blamed: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Whether nothing is known of it but that it waits."""
        return self.deadline_at is None and not self.attempts and not self.blamed


@dataclass(frozen=True, slots=True)
class Totals:
    """What a fresh start needs to know, and the page's counters."""

    next_job: int
    next_submission: int
    next_token: int
    epoch: int
    counts: dict[str, int]
    stored_bytes: int


class JobStore(Protocol):
    """A durable job table. `open` has claimed the data directory for this process."""

    def totals(self) -> Totals:
        """State at opening; `epoch` rises with each opening. Open submissions of an
        earlier life have been cancelled by then."""

    def unfinished(self) -> Iterator[Unfinished]:
        """All open jobs, oldest first, streamed: 10^6 of them in bounded memory."""

    def add(self, part: NewPart) -> Write[None]:
        """Accept a part. Fails with EnvironmentFault `storage_full` / `storage_failed` /
        `storage_busy` (too much waits for the disk), and then nothing of the part is kept."""

    def finish(self, end: JobEnd) -> Write[bool]:
        """Write an outcome. False, and nothing written, if the job has one already. While the
        disk refuses it is kept and tried again; it fails only at closing."""

    def record(self, attempt: AttemptEnd) -> Write[None]:
        """Append to the audit of attempts."""

    def seal_abandoned(self, submission: int) -> Write[None]:
        """Close an open submission that was given up, and free its key."""

    def remove(self, jobs: Sequence[int] | None) -> Write[list[int]]:
        """Delete terminal jobs and their images (all terminal ones if None); ids removed."""

    def reserve_tokens(self, last: int) -> Write[None]:
        """Make `last` the durable high-water mark of fencing tokens."""

    def image(self, job: int) -> tuple[JobRow, bytes]:
        """The upload of a job. KeyError if there is none, EnvironmentFault `image_corrupt` /
        `image_lost` if the disk did not keep it. Safe from any thread."""

    def images(self, ids: Sequence[int]) -> dict[int, tuple[str, bytes] | EnvironmentFault]:
        """Name and upload of many jobs, or why one can't be had, in few reads of the disk;
        unknown ids are left out. Safe from any thread."""

    def jobs(self, ids: Sequence[int]) -> list[JobRow]:
        """Rows by number, in the order asked, unknown ones left out."""

    def page(
        self,
        *,
        states: Sequence[JobState],
        include_open: bool,
        submission: int | None,
        before: int | None,
        limit: int,
    ) -> list[JobRow]:
        """Newest first, numbers below `before`. `states` are terminal states;
        `include_open` adds jobs without an outcome; both empty/False means all."""

    def submission(self, submission: int) -> SubmissionRow | None:
        """Counts of one submission."""

    def submission_jobs(self, submission: int) -> list[int]:
        """Numbers of its jobs, oldest first."""

    def key(self, key: str) -> KeyRow | None:
        """What an idempotency key stands for, also while its write is not durable yet."""

    def be_patient(self, patience_s: float) -> None:
        """From now on outcomes, the audit and patient parts may wait so long after the last
        commit began. Whatever else is written takes them along at once.
        """

    def fault(self) -> str | None:
        """Why the disk takes no writes at the moment (refused, or stuck); None while it does."""

    def close(self) -> None:
        """Write what was asked for, fsync, release the directory."""
