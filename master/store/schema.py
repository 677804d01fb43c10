"""Opens the database file and brings its schema up to date.

`PRAGMA user_version` is the version of the schema; `sql/NNN_name.sql` takes it
from NNN-1 to NNN. Each migration is one transaction: after a crash in the middle
the database is as before it. Older programs refuse newer data.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from master.store.statements import CACHED_STATEMENTS
from wire.errors import EnvironmentFault, LocalFault

APPLICATION_ID: Final = 0x4C4F4F4B  # "LOOK"
BUSY_TIMEOUT_S: Final = 10.0
WRITER_CACHE_KIB: Final = 16 * 1024
READER_CACHE_KIB: Final = 2 * 1024


@dataclass(frozen=True, slots=True)
class Migration:
    """The step from `version - 1` to `version`."""

    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """The steps that this program knows, in order."""
    folder = files("master.store.sql")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[:3].isdigit())
    return [
        Migration(int(name[:3]), name, folder.joinpath(name).read_text(encoding="utf-8"))
        for name in names
    ]


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes. Commits are durable when they return."""
    db = _connect(f"file:{_quoted(path)}?mode=rwc")
    use_wal(db, path)
    # FULL syncs the write-ahead log at each commit; NORMAL would not.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    # The writer checkpoints by itself, between groups.
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA journal_size_limit = 67108864")
    db.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
    return db


def use_wal(db: sqlite3.Connection, path: Path) -> None:
    """Switch to write-ahead logging, which readers beside the writer need.

    Raises:
        EnvironmentFault: `data_dir_unusable`; SQLite needs shared memory and locks for it.
    """
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        db.close()
        raise EnvironmentFault(
            "data_dir_unusable",
            f"the filesystem of {path} can't do what SQLite's write-ahead log needs (it stays in "
            f"mode {mode!r}); give a directory on a local disk with --data DIR",
        )


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that can't write; it sees every commit that has returned."""
    db = _connect(f"file:{_quoted(path)}?mode=ro")
    db.execute("PRAGMA query_only = ON")
    db.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    return db


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=CACHED_STATEMENTS,
    )


def _quoted(path: Path) -> str:
    return path.absolute().as_uri().removeprefix("file://")


def migrate(db: sqlite3.Connection, path: Path, steps: Sequence[Migration]) -> int:
    """Apply the missing steps; returns the version that was found.

    Raises:
        EnvironmentFault: `data_too_new`, `data_not_ours`.
    """
    (found,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (tables or found):
        raise EnvironmentFault(
            "data_not_ours",
            f"{path} is a database of another program; give another directory with --data DIR",
        )
    newest = steps[-1].version if steps else 0
    if found > newest:
        raise EnvironmentFault(
            "data_too_new",
            f"{path} was written by a newer Lookout (schema {found}, this one knows {newest}); "
            "upgrade this machine, or give another directory with --data DIR",
        )
    for step in steps:
        if step.version > found:
            _apply(db, step)
    return int(found)


def _apply(db: sqlite3.Connection, step: Migration) -> None:
    try:
        db.executescript(
            f"BEGIN IMMEDIATE;\n{step.sql}\n;"
            f"PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {step.version};\nCOMMIT;"
        )
    except sqlite3.Error as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise LocalFault(f"migration {step.name} failed: {error}") from error
