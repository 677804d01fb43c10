"""The writes of one transaction, as SQL. Knows nothing of threads, files or retries."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from master.store.base import JobEnd
from master.store.config import StoreConfig
from master.store.holes import Range
from master.store.images import Tail
from master.store.ops import Add, Batch, Finish, Op, Probe, Record, Remove, Seal, plan
from master.store.statements import Row, run, run_rows, select_rows
from wire.errors import LocalFault

# Jobs removed per transaction, so that a large removal doesn't hold up other writes.
REMOVE_JOBS_MAX: Final = 1024
KEYS_DROPPED_MAX: Final = 4096


@dataclass(slots=True)
class Change:
    """What a transaction did, to be told to the counters once it is committed."""

    counts: Counter[str] = field(default_factory=Counter)
    stored_bytes: int = 0
    keys: int = 0
    last_job: int = 0
    last_submission: int = 0
    last_token: int = 0
    segments_empty: list[int] = field(default_factory=list)
    removed: list[Range] = field(default_factory=list)


def apply(
    db: sqlite3.Connection, ops: Sequence[Op], config: StoreConfig, tail: Tail, keys: int
) -> Change:
    """Put ops down in an open transaction and set each op's `outcome`.

    `tail` is the segment being written to, `keys` the number of idempotency keys stored.

    Raises:
        sqlite3.Error, LocalFault: roll back; outcomes are void.
    """
    change = Change(keys=keys)
    for step in plan(ops):
        if isinstance(step, Batch):
            _batch(db, step, config, change, tail)
        elif isinstance(step, Seal):
            _seal(db, step, change)
        elif isinstance(step, Probe):
            run(db, "count_failure")
        else:
            _remove(db, step, change, tail)
    return change


def _batch(
    db: sqlite3.Connection, batch: Batch, config: StoreConfig, change: Change, tail: Tail
) -> None:
    if batch.adds:
        _add(db, batch.adds, config, change)
    if batch.finishes:
        _finish(db, batch.finishes, change)
    if batch.records:
        run_rows(db, "add_attempts", [_attempt_row(op) for op in batch.records])
    change.last_token = max(change.last_token, batch.token)
    if batch.adds or batch.token:
        run(
            db,
            "raise_meta",
            change.last_job,
            change.last_submission,
            change.last_token,
            tail.segment,
        )


# --- adding ------------------------------------------------------------------------------------


def _add(db: sqlite3.Connection, adds: Sequence[Add], config: StoreConfig, change: Change) -> None:
    firsts = [op.part for op in adds if op.part.first]
    if firsts:
        run_rows(
            db,
            "add_submissions",
            [(part.submission, part.submitted_at, int(not part.last)) for part in firsts],
        )
        _add_keys(db, adds, config, change)
    for op in adds:
        if op.part.last and not op.part.first:
            run(db, "seal", op.part.submission)
            run(db, "set_digest", op.part.submission, op.part.digest)
    _add_jobs(db, adds, change)
    change.last_submission = max(change.last_submission, *(op.part.submission for op in adds))


def _add_jobs(db: sqlite3.Connection, adds: Sequence[Add], change: Change) -> None:
    rows = [row for op in adds for row in _job_rows(op)]
    if not rows:
        return
    run_rows(db, "add_jobs", rows)
    segments: dict[int, tuple[int, int, int]] = {}
    for row in rows:
        segment, offset, size = row[4], row[5], row[6]
        _, images, image_bytes = segments.get(segment, (0, 0, 0))
        segments[segment] = (offset + size, images + 1, image_bytes + size)
        change.stored_bytes += size
    run_rows(db, "grow_segments", [(segment, *figures) for segment, figures in segments.items()])
    change.counts["open"] += len(rows)
    change.last_job = max(change.last_job, *(row[0] for row in rows))


def _job_rows(op: Add) -> list[Row]:
    part = op.part
    return [
        (
            job.job,
            part.submission,
            job.name,
            job.media_type,
            place.segment,
            place.offset_bytes,
            place.size_bytes,
            place.crc32,
            part.submitted_at,
            part.deadline_at,
        )
        for job, place in zip(part.jobs, op.places, strict=True)
    ]


def _add_keys(
    db: sqlite3.Connection, adds: Sequence[Add], config: StoreConfig, change: Change
) -> None:
    now = config.wall()
    parts = [op.part for op in adds if op.part.first and op.part.key is not None]
    if not parts:
        return
    expired = now - config.key_ttl_s
    change.keys -= run_rows(db, "drop_expired_keys", [(part.key,) for part in parts], expired)
    change.keys -= run(db, "drop_old_keys", expired, KEYS_DROPPED_MAX).rowcount
    rows = [(part.key, part.submission, part.digest, now) for part in parts]
    change.keys += run_rows(db, "add_keys", rows)
    if change.keys > config.keys_max:
        change.keys -= run(db, "drop_oldest_keys", change.keys - config.keys_max).rowcount


# --- ending ------------------------------------------------------------------------------------


def _finish(db: sqlite3.Connection, finishes: Sequence[Finish], change: Change) -> None:
    jobs = [op.end.job for op in finishes]
    still_open = {row[0] for row in select_rows(db, "which_open", jobs)}
    taken: list[JobEnd] = []
    for op in finishes:
        op.outcome = op.end.job in still_open
        if op.outcome:
            still_open.discard(op.end.job)
            taken.append(op.end)
    if not taken:
        return
    changed = run_rows(db, "end_jobs", [_end_row(end) for end in taken])
    if changed != len(taken):
        raise LocalFault(f"{len(taken)} outcomes changed {changed} rows")
    change.counts["open"] -= len(taken)
    change.counts.update(end.state.value for end in taken)


def _end_row(end: JobEnd) -> Row:
    if not end.state.terminal:
        raise LocalFault(f"{end.state} is no outcome of job {end.job}")
    return (
        end.job,
        end.state.value,
        end.attempts,
        end.finished_at,
        end.started_at,
        end.worker,
        end.model,
        end.token,
        end.top5,
        end.timings,
        end.error_code,
        end.error_message,
    )


def _attempt_row(op: Record) -> Row:
    row = op.attempt
    return (
        row.job,
        row.token,
        row.worker,
        row.outcome.value,
        row.granted_at,
        row.started_at,
        row.ended_at,
        int(row.blamed),
        row.error_code,
        row.error_message,
    )


# --- closing and removing ------------------------------------------------------------------------


def _seal(db: sqlite3.Connection, op: Seal, change: Change) -> None:
    run(db, "seal", op.submission)
    change.keys -= run(db, "drop_key", op.submission).rowcount
    run_rows(db, "remove_empty_submissions", [(op.submission,)])


def _remove(db: sqlite3.Connection, op: Remove, change: Change, tail: Tail) -> None:
    """Remove the next jobs of the list."""
    if op.todo is None:
        op.todo = _asked(db, op)
    chunk = op.todo[-REMOVE_JOBS_MAX:][::-1]
    rows = select_rows(db, "which_ended", chunk)
    if rows:
        _remove_rows(db, rows, change, tail)
    op.taken, op.outcome = len(chunk), sorted(row[0] for row in rows)


def _asked(db: sqlite3.Connection, op: Remove) -> list[int]:
    """The jobs asked for, last first. All terminal ones means those of this moment."""
    if op.jobs is None:
        return [job for (job,) in run(db, "ended_jobs")]
    return sorted(set(op.jobs), reverse=True)


def _remove_rows(db: sqlite3.Connection, rows: Sequence[Row], change: Change, tail: Tail) -> None:
    keys = [(row[0],) for row in rows]
    run_rows(db, "remove_jobs", keys)
    run_rows(db, "remove_attempts", keys)
    run_rows(db, "remove_empty_submissions", [(number,) for number in {row[2] for row in rows}])
    images: Counter[int] = Counter(row[3] for row in rows)
    sizes: Counter[int] = Counter()
    for row in rows:
        sizes[row[3]] += row[5]
        change.counts[row[1]] -= 1
        change.removed.append((row[3], row[4], row[4] + row[5]))
    shrink = [(segment, images[segment], sizes[segment]) for segment in images]
    run_rows(db, "shrink_segments", shrink)
    change.segments_empty += [row[0] for row in run(db, "empty_segments", tail.segment)]
    run(db, "drop_segments", tail.segment)
    change.stored_bytes -= sum(sizes.values())
