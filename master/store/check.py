"""Is a data directory sound? Reads everything, changes nothing.

For tests, for a person who distrusts a disk, and for a look at a backup. The
directory may be in use: everything is read in one read transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from master.store.images import Place, Segments, Tail
from master.store.opening import DATABASE, IMAGES
from master.store.schema import connect_reader
from wire.errors import EnvironmentFault


def problems(data_dir: Path) -> list[str]:
    """What is wrong, one sentence each; empty for a sound directory."""
    db = connect_reader(data_dir / DATABASE)
    db.execute("BEGIN")
    try:
        return [
            *_database(db),
            *_segments(db),
            *_rows(db),
            *_images(db, data_dir / IMAGES),
        ]
    finally:
        db.close()


def _database(db: sqlite3.Connection) -> Iterator[str]:
    for (line,) in db.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"database: {line}"
    for row in db.execute("PRAGMA foreign_key_check"):
        yield f"foreign key: {row}"


def _segments(db: sqlite3.Connection) -> Iterator[str]:
    """The figures of `segments` are what the rows of `jobs` add up to."""
    held = {
        row[0]: row[1:]
        for row in db.execute(
            "SELECT segment, count(*), sum(size_bytes), max(offset_bytes + size_bytes) "
            "FROM jobs GROUP BY segment"
        )
    }
    for segment, end, images, image_bytes in db.execute(
        "SELECT segment, end_bytes, images, image_bytes FROM segments"
    ):
        count, size, top = held.pop(segment, (0, 0, 0))
        if (images, image_bytes) != (count, size) or top > end:
            yield (
                f"segment {segment} says {images} images, {image_bytes} bytes, end {end}; its jobs "
                f"have {count} images, {size} bytes, end {top}"
            )
    for segment in held:
        yield f"segment {segment} has jobs and no row"


def _rows(db: sqlite3.Connection) -> Iterator[str]:
    job, submission, segment = db.execute(
        "SELECT last_job, last_submission, last_segment FROM meta"
    ).fetchone()
    for what, last, top in (
        ("job", job, "SELECT max(job) FROM jobs"),
        ("submission", submission, "SELECT max(submission) FROM submissions"),
        ("segment", segment, "SELECT max(segment) FROM segments"),
    ):
        (found,) = db.execute(top).fetchone()
        if (found or 0) > last:
            yield f"{what} {found} is above the last one given, {last}"
    (stray,) = db.execute(
        "SELECT count(*) FROM attempts WHERE job NOT IN (SELECT job FROM jobs)"
    ).fetchone()
    if stray:
        yield f"{stray} attempts belong to no job"


def _images(db: sqlite3.Connection, images: Path) -> Iterator[str]:
    """Every image is there, is what was uploaded, and overlaps no other."""
    segments = Segments(images, 1, lambda fd: None, Tail(1, 0))
    last = (0, 0)
    for job, segment, offset, size, crc in db.execute(
        "SELECT job, segment, offset_bytes, size_bytes, crc32 FROM jobs "
        "ORDER BY segment, offset_bytes, size_bytes"
    ):
        if (segment, offset) < last:
            yield f"the image of job {job} overlaps another one"
        last = (segment, offset + size)
        try:
            segments.read(Place(segment, offset, size, crc))
        except (OSError, EnvironmentFault) as error:
            yield f"the image of job {job}: {error}"
