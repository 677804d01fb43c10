"""Queries on read-only connections of their own: never blocked by the writer, from any thread."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final

from master.states import JobState
from master.store.base import JobRow, KeyRow, SubmissionRow, Unfinished
from master.store.counters import STATES
from master.store.images import Place
from master.store.schema import connect_reader
from master.store.statements import COLUMNS, Row, run, select_rows
from wire.errors import LocalFault

IDLE_CONNECTIONS_MAX: Final = 8
RECOVERY_CHUNK_JOBS: Final = 10_000
JOB_MAX: Final = 2**63 - 1
_STATES: Final = {state.value: state for state in JobState}


class Reader:
    """A small pool of connections and the queries on them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise LocalFault("the store is closed")
        try:
            db = self._idle.pop()
        except IndexError:
            db = connect_reader(self._path)
        try:
            yield db
        finally:
            if self._closed or len(self._idle) >= IDLE_CONNECTIONS_MAX:
                db.close()
            else:
                self._idle.append(db)

    def close(self) -> None:
        """Close idle connections; one in use is closed by its user."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    # --- queries ---------------------------------------------------------------------------

    def image(self, job: int) -> tuple[JobRow, Place] | None:
        """The row of a job and where its image lies."""
        with self._connection() as db:
            row = run(db, "image", job).fetchone()
        if row is None:
            return None
        made = _job_row(row[:-3])
        return made, Place(row[-3], row[-2], made.size_bytes, row[-1])

    def places(self, ids: Sequence[int]) -> dict[int, tuple[str, Place]]:
        """Name and place of the images of these jobs, by number."""
        with self._connection() as db:
            return {row[0]: (row[1], Place(*row[2:])) for row in select_rows(db, "places", ids)}

    def jobs(self, ids: Sequence[int]) -> list[JobRow]:
        """Rows in the order asked."""
        with self._connection() as db:
            found = {row[0]: row for row in select_rows(db, "jobs", ids)}
        return [_job_row(found[job]) for job in ids if job in found]

    def page(
        self,
        states: Sequence[JobState],
        include_open: bool,
        submission: int | None,
        before: int | None,
        limit: int,
    ) -> list[JobRow]:
        """See `JobStore.page`."""
        top = JOB_MAX if before is None else before
        with self._connection() as db:
            if not states and not include_open and submission is None:
                rows = run(db, "page_all", top, limit).fetchall()
            else:
                text, parameters = _page_query(states, include_open, submission, top, limit)
                rows = db.execute(text, parameters).fetchall()
        return [_job_row(row) for row in rows]

    def submission(self, submission: int) -> SubmissionRow | None:
        """Counts of one submission."""
        with self._connection() as db:
            # Both statements must see the same state.
            db.execute("BEGIN")
            try:
                head = run(db, "submission", submission).fetchone()
                found = dict(run(db, "submission_counts", submission).fetchall())
            finally:
                db.execute("COMMIT")
        if head is None:
            return None
        counts = {state: found.get(state, 0) for state in STATES}
        return SubmissionRow(submission, head[0], bool(head[1]), sum(counts.values()), counts)

    def submission_jobs(self, submission: int) -> list[int]:
        """Numbers of its jobs, oldest first."""
        with self._connection() as db:
            return [job for (job,) in run(db, "submission_jobs", submission)]

    def key(self, key: str, expired_before: float) -> KeyRow | None:
        """What a key stands for, unless it is from before `expired_before`."""
        with self._connection() as db:
            row = run(db, "key", key).fetchone()
        if row is None or row[4] < expired_before:
            return None
        return KeyRow(row[0], row[1], row[2], bool(row[3]))

    def unfinished(self) -> Iterator[Unfinished]:
        """Open jobs, oldest first, in chunks: no read transaction outlives one of them."""
        last = 0
        while True:
            with self._connection() as db:
                rows = run(db, "unfinished", last, RECOVERY_CHUNK_JOBS).fetchall()
                if not rows:
                    return
                last = rows[-1][0]
                history = run(db, "unfinished_attempts", rows[0][0], last).fetchall()
            tried = {job: list(tries) for job, tries in groupby(history, key=lambda row: row[0])}
            for job, size, deadline in rows:
                tries = tried.get(job, ())
                blamed = tuple(row[1] for row in tries if row[2])
                yield Unfinished(job, size, deadline, len(tries), blamed)


def _page_query(
    states: Sequence[JobState],
    include_open: bool,
    submission: int | None,
    top: int,
    limit: int,
) -> tuple[str, list[object]]:
    """One index range per state, each already in order, merged by number."""
    wanted: list[str | None] = [state.value for state in states]
    if include_open:
        wanted.append(None)
    if not wanted:
        wanted = [None, *(state for state in STATES if state != "open")]
    index = "jobs_by_state" if submission is None else "jobs_by_submission"
    ranges: list[str] = []
    parameters: list[object] = []
    for state in wanted:
        where = "state IS NULL" if state is None else "state = ?"
        parameters += [] if state is None else [state]
        if submission is not None:
            where += " AND submission = ?"
            parameters.append(submission)
        ranges.append(
            f"SELECT job FROM (SELECT job FROM jobs INDEXED BY {index} "  # noqa: S608 - constants
            f"WHERE {where} AND job < ? ORDER BY job DESC LIMIT ?)"
        )
        parameters += [top, limit]
    text = (
        f"SELECT {COLUMNS} FROM jobs WHERE job IN ({' UNION ALL '.join(ranges)}) "  # noqa: S608
        "ORDER BY job DESC LIMIT ?"
    )
    return text, [*parameters, limit]


def _job_row(row: Row) -> JobRow:
    state = row[7]
    values = (*row[:7], _STATES[state] if state is not None else None, *row[8:])
    return JobRow(*values)
