"""The backup of `docs/storage.md`: the database first, then the images, while the store runs."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

from master.store import StoreConfig, open_store
from master.store.check import problems
from tests.unit.master.store.make import end, image, part

DONE_S = 20.0
CONFIG = StoreConfig(segment_bytes=20_000, min_free_bytes=0, group_interval_s=0)


def back_up(data: Path, backup: Path) -> None:
    """What the document says, in Python."""
    backup.mkdir()
    source, target = sqlite3.connect(data / "jobs.db"), sqlite3.connect(backup / "jobs.db")
    with source, target:
        source.backup(target)
    source.close()
    target.close()
    shutil.copytree(data / "images", backup / "images")


def test_a_backup_of_a_running_store_is_a_sound_store(tmp_path: Path) -> None:
    store = open_store(tmp_path / "data", CONFIG)
    store.add(part(1, range(1, 31))).result(DONE_S)
    store.finish(end(1)).result(DONE_S)
    over = threading.Event()
    written: list[int] = []

    def go_on() -> None:
        job = 31
        while not over.is_set():
            store.add(part(job, [job])).result(DONE_S)
            store.finish(end(job)).result(DONE_S)
            written.append(job)
            job += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    backups = [tmp_path / f"backup{number}" for number in range(3)]
    for backup in backups:
        back_up(tmp_path / "data", backup)
    over.set()
    thread.join(DONE_S)
    store.close()
    assert written
    for backup in backups:
        assert problems(backup) == []
        restored = open_store(backup, CONFIG)
        assert [restored.image(job)[1] for job in range(1, 31)] == [image(n) for n in range(1, 31)]
        first = restored.totals().next_job
        restored.add(part(first, [first])).result(DONE_S)
        assert restored.image(first)[1] == image(first)
        restored.close()
        assert problems(backup) == []
