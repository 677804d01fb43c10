"""What the store does on a disk without room: run as `SCENARIO DISK DIRECTORY`, alone.

`DISK` is `mounted`, a small filesystem of its own that really has no room
(ENOSPC), or `limited`, any disk with RLIMIT_FSIZE on this process (EFBIG, which
SQLite reports as an I/O error). The process ends with 0 if all went as it must.
"""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path
from typing import Any, Protocol

from master.states import JobState
from master.store import SqliteStore, StoreConfig, open_store
from master.store.check import problems
from master.store.schema import connect_reader
from master.store.write import Write
from tests.shared import wait_until
from tests.unit.master.store.make import end, image, part
from wire.errors import EnvironmentFault

DONE_S = 30.0
SEGMENT_BYTES = 1_000_000
IMAGE_BYTES = 90_000
CONFIG = StoreConfig(
    segment_bytes=SEGMENT_BYTES, min_free_bytes=0, retry_max_s=0.2, close_timeout_s=0.5
)
BIG = b'"' + b"x" * 20_000 + b'"'


class Disk(Protocol):
    """A disk that a test can fill."""

    def fill(self) -> None: ...

    def free(self) -> None: ...


class MountedDisk:
    """The filesystem of `directory` is small and ours: a ballast file fills it."""

    def __init__(self, directory: Path) -> None:
        self._ballast = directory / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self._ballast.unlink()


class LimitedDisk:
    """No file may grow beyond a limit that lies below what the scenarios write."""

    def __init__(self, directory: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._directory = directory

    def fill(self) -> None:
        largest = max(path.stat().st_size for path in self._directory.rglob("*") if path.is_file())
        resource.setrlimit(resource.RLIMIT_FSIZE, (min(largest, 200_000), resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def adds_fail_alone(directory: Path, disk: Disk) -> None:
    """Add until there is no room: each part is there whole, or not at all."""
    store = open_store(directory / "data", CONFIG)
    accepted = _add(store, range(1, 6))
    disk.fill()
    refused: list[int] = []
    for job in range(6, 400, 2):
        try:
            store.add(part(job, [job, job + 1], size_bytes=IMAGE_BYTES)).result(DONE_S)
            accepted += [job, job + 1]
        except EnvironmentFault as fault:
            assert fault.code in ("storage_full", "storage_failed"), fault.code
            assert str(directory) in fault.reason
            refused.append(job)
    assert refused, "the disk was never full"
    _compare(store, accepted)
    disk.free()
    _wait_until_well(store)
    accepted += _add(store, [1000])
    _compare(store, accepted)
    store.close()
    assert problems(directory / "data") == []
    store = open_store(directory / "data", CONFIG)
    _compare(store, accepted)
    store.close()


def outcomes_wait(directory: Path, disk: Disk) -> None:
    """Outcomes that don't fit are kept until they do; adds hear at once, reads go on."""
    store = open_store(directory / "data", CONFIG)
    _add(store, range(1, 21))
    disk.fill()
    outcomes = _end(store, range(1, 21))
    wait_until(lambda: store.stats().failing is not None, DONE_S, "the disk to refuse")
    late: Write[Any] = store.add(part(50, [50]))
    try:
        late.result(DONE_S)
        raise AssertionError("accepted on a full disk")
    except EnvironmentFault as fault:
        assert fault.code in ("storage_full", "storage_failed")
    assert not any(future.done() for future in outcomes)
    _compare(store, range(1, 21))
    disk.free()
    assert [future.result(DONE_S) for future in outcomes] == [True] * 20
    assert store.stats().failing is None
    _add(store, [51])
    assert all(row.top5 == BIG for row in store.jobs(range(1, 21)))
    store.close()
    assert problems(directory / "data") == []
    # A later commit has written over what the failed ones left in the log.
    db = connect_reader(directory / "data" / "jobs.db")
    assert db.execute("SELECT failed_commits FROM meta").fetchone()[0] >= 1
    db.close()


def closing_gives_up(directory: Path, disk: Disk) -> None:
    """A disk that stays full does not hold up the end; the jobs are open again after."""
    store = open_store(directory / "data", CONFIG)
    _add(store, range(1, 21))
    disk.fill()
    outcomes = _end(store, range(1, 21))
    wait_until(lambda: store.stats().failing is not None, DONE_S, "the disk to refuse")
    store.close()
    assert all(isinstance(future.exception(0), EnvironmentFault) for future in outcomes)
    disk.free()
    store = open_store(directory / "data", CONFIG)
    assert [job.job for job in store.unfinished()] == list(range(1, 21))
    assert all(future.result(DONE_S) for future in _end(store, range(1, 21)))
    store.close()
    assert problems(directory / "data") == []


def _add(store: SqliteStore, jobs: Any) -> list[int]:
    for job in jobs:
        store.add(part(job, [job], size_bytes=IMAGE_BYTES)).result(DONE_S)
    return list(jobs)


def _end(store: SqliteStore, jobs: Any) -> list[Write[bool]]:
    return [store.finish(end(job, JobState.SUCCEEDED, top5=BIG)) for job in jobs]


def _wait_until_well(store: SqliteStore) -> None:
    wait_until(lambda: store.stats().failing is None, DONE_S, "the disk to be well again")


def _compare(store: SqliteStore, accepted: Any) -> None:
    rows = store.page(states=[], include_open=False, submission=None, before=None, limit=10_000)
    assert sorted(row.job for row in rows) == sorted(accepted)
    assert all(store.image(job)[1] == image(job, IMAGE_BYTES) for job in accepted)
    assert sum(store.totals().counts.values()) == len(rows)
    assert store.totals().stored_bytes == len(rows) * IMAGE_BYTES


SCENARIOS = {
    scenario.__name__: scenario for scenario in (adds_fail_alone, outcomes_wait, closing_gives_up)
}

if __name__ == "__main__":
    where = Path(sys.argv[3])
    SCENARIOS[sys.argv[1]](
        where, MountedDisk(where) if sys.argv[2] == "mounted" else LimitedDisk(where)
    )
