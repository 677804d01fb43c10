"""The core's durable table after a run, read without the core: jobs, and the audit of leases.

Opens SQLite read-only, so that a look can't change what is looked at. The
columns are those of `docs/storage.md`. An image is known by its name, size and
checksum: load gives every image a name of its own.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import BadRun
from experiments.history import Audit, Grant, Row

TABLE = "jobs.db"

_JOBS = """
SELECT jobs.job, state, name, size_bytes, crc32, top5, timings, token, worker, attempts,
       submitted_at, started_at, finished_at, error_code, key
FROM jobs LEFT JOIN keys USING (submission) ORDER BY jobs.job
"""
# What the core writes beside a result that a lease of its dead predecessor brought.
GRANTED_BEFORE = "granted_before"
_GRANTS = """
SELECT job, token, worker, outcome, granted_at, started_at, ended_at, blamed, error_code
FROM attempts ORDER BY granted_at, token
"""


def image_id(name: str, body: bytes) -> str:
    """How an image is known on both sides."""
    return f"{name}:{len(body)}:{zlib.crc32(body):08x}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One job with its times; wall-clock seconds, durations in milliseconds."""

    row: Row
    attempts: int
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    timings_ms: dict[str, float]
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """The whole table."""

    entries: list[Entry] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)
    last_token: int = 0


def read(data: Path) -> Ledger:
    """The ledger in a core's data directory; the core must have ended.

    Raises:
        BadRun: there is no table, or it is not one of ours.
    """
    path = data / TABLE
    if not path.is_file():
        raise BadRun(f"there is no {path}: did the core ever start?")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            (last_token,) = db.execute("SELECT last_token FROM meta").fetchone()
            return Ledger(list(_entries(db)), list(_audits(db)), int(last_token))
    except sqlite3.Error as error:
        raise BadRun(f"{path} can't be read as a job table: {error}") from error


def _entries(db: sqlite3.Connection) -> Iterator[Entry]:
    for found in db.execute(_JOBS):
        top5 = json.loads(found["top5"]) if found["top5"] else []
        row = Row(
            job=f"j{found['job']}",
            state=found["state"],
            image=f"{found['name']}:{found['size_bytes']}:{found['crc32']:08x}",
            class_id=int(top5[0]["class_id"]) if top5 else None,
            token=found["token"],
            worker=found["worker"],
            key=found["key"],
        )
        timings = json.loads(found["timings"]) if found["timings"] else {}
        yield Entry(
            row,
            found["attempts"],
            found["submitted_at"],
            found["started_at"],
            found["finished_at"],
            timings,
            found["error_code"],
        )


def _audits(db: sqlite3.Connection) -> Iterator[Audit]:
    for found in db.execute(_GRANTS):
        grant = Grant(
            f"j{found['job']}",
            found["token"],
            found["worker"],
            found["outcome"],
            found["granted_at"],
            found["ended_at"],
            granted_before=found["error_code"] == GRANTED_BEFORE,
        )
        yield Audit(grant, found["started_at"], bool(found["blamed"]))
