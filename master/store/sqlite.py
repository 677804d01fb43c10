"""`SqliteStore`: the `JobStore` on one machine's disk.

A directory holds `lock`, `jobs.db` (SQLite in WAL mode: rows) and `images/`
(segment files: bytes). One thread writes (`writer.py`), anybody reads
(`reads.py`). See `docs/storage.md` for what survives what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from master.states import JobState
from master.store.base import (
    AttemptEnd,
    JobEnd,
    JobRow,
    KeyRow,
    NewPart,
    SubmissionRow,
    Totals,
    Unfinished,
)
from master.store.checksum import crc32
from master.store.config import StoreConfig
from master.store.images import Place
from master.store.lock import DirectoryLock
from master.store.opening import open_files
from master.store.ops import Add, Finish, Op, Record, Remove, Reserve, Seal
from master.store.reads import Reader
from master.store.stats import Meter, StoreStats, quantile
from master.store.write import Write
from master.store.writer import Writer
from wire.errors import EnvironmentFault, LocalFault


class SqliteStore:
    """See `JobStore` for the contract of each method."""

    def __init__(self, data_dir: Path, config: StoreConfig) -> None:
        """Claim the directory, bring its schema up to date, repair what a crash left.

        Raises:
            EnvironmentFault: `data_dir_in_use`, `data_dir_unusable`, `data_too_new`,
                `data_not_ours`, `data_corrupt`, `storage_full`, `storage_failed`.
        """
        self._config = config
        self._meter = Meter()
        self._lock = DirectoryLock(data_dir)
        try:
            opened = open_files(data_dir, config, self._meter)
        except BaseException:
            self._lock.release()
            raise
        self._segments = opened.segments
        self._counters = opened.counters
        self._reader = Reader(opened.path)
        self._keys_on_their_way: dict[str, KeyRow] = {}
        self._closed = False
        self._writer = Writer(
            opened.db, opened.segments, data_dir, config, opened.counters, self._meter
        )

    # --- writes ----------------------------------------------------------------------------

    def add(self, part: NewPart) -> Write[None]:
        """Accept a part."""
        size = sum(len(job.image) for job in part.jobs)
        # Here and not in the writer: each checksum releases the GIL, and a writer that
        # has to win it back per image is what makes groups slow. zlib-ng: 4 us for 100 kB,
        # where zlib takes 40.
        op = Add(part, [crc32(job.image) for job in part.jobs], size)
        if self._counters.pending_bytes + size > self._config.queue_bytes_max and (
            self._counters.pending_bytes
        ):
            return self._busy(op, "bytes", self._counters.pending_bytes)
        if part.first and part.key is not None:
            self._announce(part.key, part, op)
        return self._put(op, size)

    def finish(self, end: JobEnd) -> Write[bool]:
        """Write an outcome."""
        return self._put(Finish(end))

    def record(self, attempt: AttemptEnd) -> Write[None]:
        """Append to the audit."""
        return self._put(Record(attempt))

    def seal_abandoned(self, submission: int) -> Write[None]:
        """Close an open submission that was given up."""
        return self._put(Seal(submission))

    def remove(self, jobs: Sequence[int] | None) -> Write[list[int]]:
        """Delete terminal jobs."""
        return self._put(Remove(jobs))

    def reserve_tokens(self, last: int) -> Write[None]:
        """Raise the high-water mark."""
        return self._put(Reserve(last))

    def be_patient(self, patience_s: float) -> None:
        """Let commits lie so far apart."""
        self._writer.patience_s = patience_s

    def _put(self, op: Op, size: int = 0) -> Write[Any]:
        if self._closed:
            raise LocalFault("the store is closed")
        if self._counters.pending_ops >= self._config.queue_ops_max:
            return self._busy(op, "writes", self._counters.pending_ops)
        self._counters.asked(1, size)
        self._writer.put(op)
        return op.future

    def _busy(self, op: Op, what: str, waiting: int) -> Write[Any]:
        op.future.set_exception(
            EnvironmentFault(
                "storage_busy",
                f"{waiting} {what} wait for the disk, which is the bound; try again in a second",
            )
        )
        return op.future

    def _announce(self, key: str, part: NewPart, op: Add) -> None:
        """An equal request that comes before this one is durable must see its key."""
        self._keys_on_their_way[key] = KeyRow(key, part.submission, part.digest, True)
        op.future.add_done_callback(lambda _: self._keys_on_their_way.pop(key, None))

    # --- reads -----------------------------------------------------------------------------

    def totals(self) -> Totals:
        """Counts and next numbers, as of now."""
        return self._counters.totals()

    def unfinished(self) -> Iterator[Unfinished]:
        """Open jobs, oldest first."""
        return self._reader.unfinished()

    def image(self, job: int) -> tuple[JobRow, bytes]:
        """A job and its upload; also raises EnvironmentFault `image_corrupt`, `image_lost`."""
        found = self._reader.image(job)
        if found is None:
            raise KeyError(job)
        row, place = found
        try:
            return row, self._segments.read(place)
        except (FileNotFoundError, EnvironmentFault) as error:
            if self._reader.image(job) is None:  # removed between the two reads
                raise KeyError(job) from None
            raise self._unreadable(job, place, error) from error

    def _unreadable(
        self, job: int, place: Place, error: FileNotFoundError | EnvironmentFault
    ) -> EnvironmentFault:
        if isinstance(error, EnvironmentFault):
            return error
        return EnvironmentFault(
            "image_lost",
            f"{self._segments.path(place.segment)} with the image of job {job} is gone; "
            "restore it from a backup, or submit the image again",
        )

    def images(self, ids: Sequence[int]) -> dict[int, tuple[str, bytes] | EnvironmentFault]:
        """Many jobs' uploads in few reads."""
        found = self._reader.places(ids)
        read = self._segments.read_many([place for _, place in found.values()])
        answers: dict[int, tuple[str, bytes] | EnvironmentFault] = {}
        for (job, (name, place)), image in zip(found.items(), read, strict=True):
            if isinstance(image, bytes):
                answers[job] = (name, image)
            elif self._reader.image(job) is not None:  # else removed between the two reads
                answers[job] = self._unreadable(job, place, image)
        return answers

    def jobs(self, ids: Sequence[int]) -> list[JobRow]:
        """Rows by number."""
        return self._reader.jobs(ids)

    def page(
        self,
        *,
        states: Sequence[JobState],
        include_open: bool,
        submission: int | None,
        before: int | None,
        limit: int,
    ) -> list[JobRow]:
        """Newest first."""
        return self._reader.page(states, include_open, submission, before, limit)

    def submission(self, submission: int) -> SubmissionRow | None:
        """Counts of one submission."""
        return self._reader.submission(submission)

    def submission_jobs(self, submission: int) -> list[int]:
        """Numbers of its jobs."""
        return self._reader.submission_jobs(submission)

    def key(self, key: str) -> KeyRow | None:
        """A key that is on its way, else a durable one that has not expired."""
        waiting = self._keys_on_their_way.get(key)
        if waiting is not None:
            return waiting
        return self._reader.key(key, self._config.wall() - self._config.key_ttl_s)

    def fault(self) -> str | None:
        """Why the disk takes no writes at the moment."""
        return self._writer.fault()

    def stats(self) -> StoreStats:
        """What the writer measured."""
        meter, counters = self._meter, self._counters
        commit_s, sync_s = list(meter.commit_s), list(meter.sync_s)
        failing = self._writer.failing
        return StoreStats(
            commits=meter.commits,
            ops=meter.ops,
            groups_failed=meter.groups_failed,
            group_ops_p50=quantile(list(meter.groups), 0.5),
            group_ops_max=meter.group_ops_max,
            commit_p50_s=quantile(commit_s, 0.5),
            commit_p99_s=quantile(commit_s, 0.99),
            sync_p50_s=quantile(sync_s, 0.5),
            sync_p99_s=quantile(sync_s, 0.99),
            syncs=meter.syncs,
            writer_cpu_s=meter.cpu_s,
            pending_ops=counters.pending_ops,
            pending_bytes=counters.pending_bytes,
            failing=failing.reason if failing is not None else None,
        )

    # --- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what was asked for and release the directory; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._writer.stop()
        self._reader.close()
        self._lock.release()
