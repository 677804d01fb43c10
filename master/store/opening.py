"""Opening a data directory: schema, what a crash left behind, and the figures to start from."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from master.store.base import Totals
from master.store.config import StoreConfig
from master.store.counters import STATES, Counters
from master.store.disk import failed_fault, full_fault, is_full, sync_directory
from master.store.images import SUFFIX, Segments, Tail
from master.store.schema import connect_writer, migrate, migrations
from master.store.statements import Row, run
from master.store.stats import Meter
from wire.errors import EnvironmentFault

log = logging.getLogger("lookout.store")

DATABASE: Final = "jobs.db"
IMAGES: Final = "images"
CORRUPT_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True)
class Opened:
    """What the store is built from."""

    path: Path
    db: sqlite3.Connection
    segments: Segments
    counters: Counters


def open_files(directory: Path, config: StoreConfig, meter: Meter) -> Opened:
    """Open the database and the image files of a directory that is ours."""
    path = directory / DATABASE
    try:
        (directory / IMAGES).mkdir(exist_ok=True)
        db = connect_writer(path)
    except (OSError, sqlite3.Error) as error:
        raise _fault(directory, path, error) from error
    try:
        return _open(db, directory, path, config, meter)
    except (OSError, sqlite3.Error) as error:
        db.close()
        raise _fault(directory, path, error) from error
    except BaseException:
        db.close()
        raise


def _open(
    db: sqlite3.Connection, directory: Path, path: Path, config: StoreConfig, meter: Meter
) -> Opened:
    migrate(db, path, migrations())
    sync_directory(directory)
    _begin_epoch(db, config.wall())
    epoch, job, submission, token, last_segment = run(db, "meta").fetchone()
    rows = run(db, "segments").fetchall()
    images = directory / IMAGES
    _check_files(images, rows)
    tail = Tail(rows[-1][0], rows[-1][1]) if rows else Tail(last_segment + 1, 0)
    segments = Segments(images, config.segment_bytes, _timed(config.sync, meter), tail)
    counts = dict.fromkeys(STATES, 0)
    counts.update(run(db, "counts").fetchall())
    totals = Totals(job + 1, submission + 1, token + 1, epoch, counts, sum(row[3] for row in rows))
    (keys,) = run(db, "count_keys").fetchone()
    return Opened(path, db, segments, Counters(totals, keys))


def _begin_epoch(db: sqlite3.Connection, now: float) -> None:
    """In one transaction: a new epoch, and an end to what nobody was told 2xx for."""
    db.execute("BEGIN IMMEDIATE")
    cancelled = run(db, "cancel_abandoned", now).rowcount
    run(db, "drop_abandoned_keys")
    run(db, "remove_abandoned")
    run(db, "seal_abandoned")
    run(db, "raise_epoch")
    db.execute("COMMIT")
    if cancelled:
        log.info("submissions_abandoned jobs_cancelled=%d", cancelled)


def _check_files(images: Path, rows: list[Row]) -> None:
    """Delete segment files that no row knows; say which known ones are missing or short."""
    known = {row[0]: row for row in rows}
    sizes: dict[int, int] = {}
    for path in images.glob(f"*{SUFFIX}"):
        if path.stem.isdigit() and int(path.stem) in known:
            sizes[int(path.stem)] = path.stat().st_size
        else:
            log.info("segment_deleted file=%s reason=unknown_to_the_table", path.name)
            path.unlink()
    for segment, end_bytes, held, _ in rows:
        if held and sizes.get(segment, 0) < end_bytes:
            log.error(
                "segment_damaged segment=%d size_bytes=%d expected_bytes=%d images=%d",
                segment,
                sizes.get(segment, 0),
                end_bytes,
                held,
            )


def _timed(sync: Callable[[int], None], meter: Meter) -> Callable[[int], None]:
    def timed(fd: int) -> None:
        begun = time.monotonic()
        sync(fd)
        meter.synced(time.monotonic() - begun)

    return timed


def _fault(directory: Path, path: Path, error: OSError | sqlite3.Error) -> EnvironmentFault:
    if is_full(error):
        return full_fault(directory, 0, 0)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in CORRUPT_CODES:
        return EnvironmentFault(
            "data_corrupt",
            f"{path} is damaged ({error}); restore the directory from a backup, or try "
            f"`sqlite3 {path} .recover` on a copy",
        )
    return failed_fault(directory, error)
