"""Old data is brought up to date, one step at a time; newer and foreign data is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from master.states import JobState
from master.store import open_store
from master.store.base import KeyRow, Unfinished
from master.store.check import problems
from master.store.config import StoreConfig
from master.store.schema import (
    APPLICATION_ID,
    Migration,
    connect_writer,
    migrate,
    migrations,
    use_wal,
)
from tests.unit.master.store.make import SECOND, end, part
from wire.errors import EnvironmentFault, LocalFault

VERSION_1 = Path(__file__).with_name("version1.sql")
SECOND_STEP = Migration(2, "002_colour.sql", "ALTER TABLE t ADD COLUMN colour TEXT")
STEPS = [Migration(1, "001_t.sql", "CREATE TABLE t (x); INSERT INTO t VALUES (1)"), SECOND_STEP]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect_writer(tmp_path / "jobs.db")
    yield connection
    connection.close()


def version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_steps_are_numbered_without_gaps() -> None:
    assert [step.version for step in migrations()] == list(range(1, len(migrations()) + 1))


def test_missing_steps_are_applied_and_known_ones_are_not(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    assert migrate(db, tmp_path, STEPS[:1]) == 0
    assert migrate(db, tmp_path, STEPS) == 1
    assert migrate(db, tmp_path, STEPS) == 2
    assert db.execute("SELECT x, colour FROM t").fetchall() == [(1, None)]
    assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE half (x); INSERT INTO nowhere VALUES (1)", "CREATE TABLE half (x); ?("]
)
def test_a_step_that_fails_leaves_the_version_before(
    db: sqlite3.Connection, tmp_path: Path, sql: str
) -> None:
    with pytest.raises((LocalFault, sqlite3.OperationalError)):
        migrate(db, tmp_path, [*STEPS, Migration(3, "003_broken.sql", sql)])
    assert version(db) == 2
    assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone() == (0,)
    assert migrate(db, tmp_path, STEPS) == 2


def test_a_directory_of_the_first_release_opens_with_everything_in_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.executescript(VERSION_1.read_text(encoding="utf-8"))
    connection.close()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "00000002.seg").write_bytes(b"helloworldagain")
    store = open_store(tmp_path, StoreConfig(wall=lambda: SECOND + 60, min_free_bytes=0))
    assert [store.image(job)[1] for job in (10, 11, 12)] == [b"hello", b"world", b"again"]
    assert list(store.unfinished()) == [Unfinished(11, 5, 1700009999.0, 1, ("w2",))]
    ended, _, abandoned = store.jobs([10, 11, 12])
    assert (ended.state, ended.top5) == (JobState.SUCCEEDED, b'[{"label":"cat"}]')
    assert abandoned.error_code == "submission_abandoned"
    assert store.key("k8") == KeyRow("k8", 8, "d8", False)
    assert store.key("k9") is None
    totals = store.totals()
    assert (totals.next_job, totals.next_submission, totals.next_token) == (13, 10, 4097)
    assert totals.epoch == 5
    store.add(part(10, [13])).result(20)
    assert store.finish(end(11)).result(20)
    store.close()
    assert problems(tmp_path) == []


def test_data_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(EnvironmentFault, match="newer Lookout") as refused:
        open_store(tmp_path)
    assert refused.value.code == "data_too_new"
    connection = sqlite3.connect(tmp_path / "jobs.db")
    assert version(connection) == 99
    assert connection.execute("SELECT epoch FROM meta").fetchone() == (1,)
    connection.close()


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(EnvironmentFault, match="another program") as refused:
        open_store(tmp_path)
    assert refused.value.code == "data_not_ours"


def test_a_filesystem_without_locks_is_refused(tmp_path: Path) -> None:
    """SQLite's dot-file locking stands for one: it has no write-ahead log either."""
    connection = sqlite3.connect(f"file:{tmp_path}/jobs.db?vfs=unix-dotfile", uri=True)
    with pytest.raises(EnvironmentFault, match="local disk") as refused:
        use_wal(connection, tmp_path / "jobs.db")
    assert refused.value.code == "data_dir_unusable"


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("UPDATE jobs SET state = 'failed' WHERE job = 1", "one outcome"),
        ("UPDATE jobs SET state = NULL, finished_at = NULL WHERE job = 1", "one outcome"),
        ("DELETE FROM jobs WHERE job = 2", "open job"),
        ("UPDATE jobs SET state = 'leased', finished_at = 1 WHERE job = 2", "CHECK"),
        ("UPDATE jobs SET state = 'failed' WHERE job = 2", "CHECK"),
        ("UPDATE attempts SET blamed = 0", "append-only"),
        ("DELETE FROM attempts", "goes only with its job"),
        ("UPDATE meta SET last_token = last_token - 1", "only rise"),
        ("UPDATE meta SET last_job = 0", "only rise"),
        ("DELETE FROM submissions WHERE submission = 1", "FOREIGN KEY"),
        ("INSERT INTO submissions VALUES (5, 'yesterday', 0)", "cannot store TEXT"),
    ],
)
def test_the_schema_itself_refuses_what_may_never_happen(
    tmp_path: Path, sql: str, why: str
) -> None:
    store = open_store(tmp_path)
    store.add(part(1, [1, 2]))
    store.finish(end(1))
    store.reserve_tokens(10)
    store.close()
    connection = connect_writer(tmp_path / "jobs.db")
    connection.execute("INSERT INTO attempts VALUES (1, 1, 'w', 'lost', 1, 1, 1, 1, NULL, '')")
    with pytest.raises(sqlite3.IntegrityError, match=why):
        connection.execute(sql)
    connection.close()
