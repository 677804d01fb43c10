"""Nobody is told before it is on disk, and a disk that refuses loses nothing."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from master.states import JobState
from master.store import SqliteStore, StoreConfig, open_store
from master.store.check import problems
from master.store.schema import connect_reader
from master.store.write import Write
from tests.shared import wait_until
from tests.unit.master.store.gate import Gate
from tests.unit.master.store.make import SECOND, attempt, end, image, part
from wire.errors import EnvironmentFault

DONE_S = 20.0


def opened(directory: Path, gate: Gate, **fields: Any) -> SqliteStore:
    return open_store(directory, StoreConfig(**{"sync": gate, "min_free_bytes": 0} | fields))


def held_up(store: SqliteStore, gate: Gate, job: int) -> Write[None]:
    """Add a job and wait until the writer stands before the gate with it."""
    gate.close()
    future = store.add(part(job, [job]))
    assert gate.reached.wait(DONE_S)
    return future


def test_a_job_is_told_and_seen_only_after_its_image_is_synced(tmp_path: Path) -> None:
    gate = Gate()
    store = opened(tmp_path, gate)
    future = held_up(store, gate, 1)
    assert not future.done()
    assert store.jobs([1]) == []
    gate.open()
    future.result(DONE_S)
    assert [row.job for row in store.jobs([1])] == [1]
    store.close()


def test_every_commit_of_rows_is_synced_by_sqlite(tmp_path: Path) -> None:
    store = opened(tmp_path, Gate())
    db = store._writer._db  # the promise is a setting of this connection
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_what_waits_goes_in_one_group_with_one_sync_and_one_call(tmp_path: Path) -> None:
    gate = Gate()
    told: list[list[Write[Any]]] = []
    threads: set[str] = set()

    def notify(futures: Sequence[Write[Any]]) -> None:
        assert all(future.done() for future in futures)
        threads.add(threading.current_thread().name)
        told.append(list(futures))

    store = opened(tmp_path, gate, notify=notify)
    first = held_up(store, gate, 1)
    asked: list[Write[Any]] = [store.add(part(job, [job])) for job in range(2, 52)]
    asked += [store.finish(end(1)), store.record(attempt(2, 1)), store.reserve_tokens(9)]
    calls = gate.calls
    gate.open()
    asked[-1].result(DONE_S)
    store.close()
    assert told == [[first], asked]
    assert gate.calls == calls + 1
    assert threads == {"store-writer"}
    assert store.stats().commits == 2
    assert store.stats().group_ops_max == 53


def test_a_patient_store_lets_a_write_wait_for_others_of_its_group(tmp_path: Path) -> None:
    store = opened(tmp_path, Gate())
    store.be_patient(0.5)
    store.add(part(1, [1])).result(DONE_S)
    second = store.add(part(2, [2], patient=True))
    wait_until(lambda: not store._writer._queue.qsize(), DONE_S)
    third = store.add(part(3, [3], patient=True))
    third.result(DONE_S)
    assert second.done()
    assert store.stats().commits == 2, "the writer had the second one when the third came"
    store.close()


def test_somebody_who_waits_for_a_write_is_not_kept_waiting(tmp_path: Path) -> None:
    store = opened(tmp_path, Gate())
    store.add(part(1, [1])).result(DONE_S)
    store.be_patient(1000.0)
    patient = store.add(part(2, [2], patient=True))
    wait_until(lambda: not store._writer._queue.qsize(), DONE_S)
    outcome = store.finish(end(1))
    assert not patient.done() and not outcome.done()
    store.add(part(3, [3])).result(DONE_S)
    assert patient.done() and outcome.result(DONE_S), "they went along"
    kept_back = store.add(part(4, [4], patient=True))
    store.close()
    assert kept_back.done(), "the end doesn't wait either"


def test_a_power_cut_right_after_the_answer_loses_nothing(tmp_path: Path) -> None:
    """Files are put back to what they held at their last sync: what was not synced is gone."""
    synced: dict[str, bytes] = {}
    gate = Gate()

    def remember(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").resolve()
        synced[path.name] = path.read_bytes()

    gate.after = remember
    store = opened(tmp_path / "data", gate, segment_bytes=20_000)
    futures = [store.add(part(job, [job, job + 1], size_bytes=900)) for job in range(1, 200, 2)]
    for number, future in enumerate(futures):
        future.result(DONE_S)
        if number % 20 == 19:
            copy = tmp_path / f"copy{number}"
            shutil.copytree(tmp_path / "data", copy)
            for segment in (copy / "images").iterdir():
                segment.write_bytes(synced[segment.name])
            after = open_store(copy)
            jobs = range(1, 2 * number + 3)
            assert [after.image(job)[1] for job in jobs] == [image(job, 900) for job in jobs]
            after.close()
            assert problems(copy) == []
    store.close()


@pytest.mark.parametrize(
    ("number", "code", "third_lies_in"),
    [(errno.EIO, "storage_failed", "00000002.seg"), (errno.ENOSPC, "storage_full", "00000001.seg")],
)
def test_a_failed_sync_refuses_the_adds_and_nothing_else(
    tmp_path: Path, number: int, code: str, third_lies_in: str
) -> None:
    """After EIO the kernel may call pages clean that are not on disk: that file is left alone."""
    gate = Gate()
    store = opened(tmp_path, gate)
    store.add(part(1, [1])).result(DONE_S)
    gate.fail_next = OSError(number, "as a test wants it")
    refused = held_up(store, gate, 2)
    gate.open()
    with pytest.raises(EnvironmentFault) as fault:
        refused.result(DONE_S)
    assert fault.value.code == code
    assert str(tmp_path) in fault.value.reason
    assert store.totals().counts["open"] == 1
    assert store.totals().stored_bytes == 1000
    store.add(part(3, [3])).result(DONE_S)
    assert [row.job for row in store.jobs([1, 2, 3])] == [1, 3]
    assert [store.image(job)[1] for job in (1, 3)] == [image(1), image(3)]
    store.close()
    assert problems(tmp_path) == []
    last = max((tmp_path / "images").iterdir())
    assert last.name == third_lies_in
    assert last.read_bytes().endswith(image(1) + image(3) if code == "storage_full" else image(3))


def test_outcomes_pass_a_failed_sync_of_the_same_group(tmp_path: Path) -> None:
    gate = Gate()
    store = opened(tmp_path, gate)
    store.add(part(1, [1])).result(DONE_S)
    first = held_up(store, gate, 2)
    refused = store.add(part(3, [3]))
    ended = store.finish(end(1))

    def fail_the_second() -> None:
        if first.done():
            gate.fail_next = OSError(errno.EIO, "as a test wants it")

    gate.before = fail_the_second
    gate.open()
    assert ended.result(DONE_S) is True
    with pytest.raises(EnvironmentFault):
        refused.result(DONE_S)
    store.close()


def test_the_reserve_is_left_free(tmp_path: Path) -> None:
    store = opened(tmp_path, Gate())
    store.add(part(1, [1])).result(DONE_S)
    store.close()
    store = opened(tmp_path, Gate(), min_free_bytes=2**60)
    with pytest.raises(EnvironmentFault, match="in reserve") as fault:
        store.add(part(2, [2])).result(DONE_S)
    assert fault.value.code == "storage_full"
    assert store.finish(end(1)).result(DONE_S) is True
    assert store.remove(None).result(DONE_S) == [1]
    store.close()


def test_the_queue_is_bounded_by_count_and_bytes(tmp_path: Path) -> None:
    gate = Gate()
    store = opened(tmp_path, gate, queue_ops_max=4, queue_bytes_max=3000)
    first = held_up(store, gate, 1)
    second = store.add(part(2, [2, 3]))
    assert store.stats().pending_bytes == 3000
    with pytest.raises(EnvironmentFault, match="bytes wait") as fault:
        store.add(part(4, [4])).result(0)
    assert fault.value.code == "storage_busy"
    waiting = [store.reserve_tokens(1), store.reserve_tokens(2)]
    with pytest.raises(EnvironmentFault, match="writes wait"):
        store.finish(end(1)).result(0)
    gate.open()
    for future in (first, second, *waiting):
        future.result(DONE_S)
    store.add(part(4, [4])).result(DONE_S)
    assert store.stats().pending_bytes == 0
    store.close()


def test_one_part_larger_than_the_bound_is_taken_when_nothing_waits(tmp_path: Path) -> None:
    store = opened(tmp_path, Gate(), queue_bytes_max=10, group_bytes_max=10, segment_bytes=10)
    store.add(part(1, [1, 2])).result(DONE_S)
    assert store.image(2)[1] == image(2)
    store.close()


def test_a_bug_in_one_write_fails_that_write_alone(tmp_path: Path) -> None:
    gate = Gate()
    store = opened(tmp_path, gate)
    first = held_up(store, gate, 1)
    good = [store.add(part(2, [2])), store.add(part(3, [3]))]
    bad = [store.finish(end(1, JobState.QUEUED)), store.record(attempt(1, 1, worker=object()))]
    good_end = store.finish(end(2))
    gate.open()
    first.result(DONE_S)
    for future in good:
        future.result(DONE_S)
    for wrong in bad:
        with pytest.raises(Exception, match=r"outcome|invariant"):
            wrong.result(DONE_S)
    assert good_end.result(DONE_S) is True
    store.close()
    assert problems(tmp_path) == []


def test_a_notification_that_raises_does_not_end_the_writer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def notify(futures: Sequence[Write[Any]]) -> None:
        raise RuntimeError("somebody's bug")

    store = opened(tmp_path, Gate(), notify=notify)
    store.add(part(1, [1])).result(DONE_S)
    store.add(part(2, [2])).result(DONE_S)
    store.close()
    assert "store_notify_failed" in caplog.text


def test_an_idempotency_key_expires(tmp_path: Path) -> None:
    now = [SECOND]
    store = opened(tmp_path, Gate(), wall=lambda: now[0], key_ttl_s=100.0)
    store.add(part(1, [1], key="a")).result(DONE_S)
    now[0] += 99
    assert store.key("a") is not None
    now[0] += 2
    assert store.key("a") is None
    store.add(part(2, [2], key="a")).result(DONE_S)
    key = store.key("a")
    assert key is not None
    assert key.submission == 2
    store.close()


def test_the_oldest_keys_make_room(tmp_path: Path) -> None:
    now = [SECOND]
    store = opened(tmp_path, Gate(), wall=lambda: now[0], keys_max=3)
    for number in range(1, 6):
        now[0] += 1
        store.add(part(number, [number], key=f"k{number}")).result(DONE_S)
    kept = [number for number in range(1, 6) if store.key(f"k{number}") is not None]
    assert kept == [3, 4, 5]
    store.close()


def test_a_large_removal_lets_others_pass(tmp_path: Path) -> None:
    """10,000 jobs go in ten transactions; a write asked for meanwhile is not the last."""
    store = opened(tmp_path, Gate())
    jobs = range(1, 10_001)
    store.add(part(1, jobs, size_bytes=1))
    for job in jobs:
        store.finish(end(job))
    store.reserve_tokens(1).result(DONE_S)
    order: list[str] = []
    removal = store.remove(None)
    removal.add_done_callback(lambda _: order.append("removed"))
    added = store.add(part(2, [10_001]))
    added.add_done_callback(lambda _: order.append("added"))
    assert removal.result(DONE_S) == list(jobs)
    added.result(DONE_S)
    assert order == ["added", "removed"]
    assert store.totals().counts == {"open": 1, "succeeded": 0, "failed": 0, "cancelled": 0}
    store.close()
    assert problems(tmp_path) == []


def test_the_log_is_moved_into_the_database_as_it_grows(tmp_path: Path) -> None:
    store = opened(tmp_path, Gate(), checkpoint_rows=100)
    for round_ in range(30):
        first = round_ * 100 + 1
        store.add(part(round_ + 1, range(first, first + 100), size_bytes=1)).result(DONE_S)
    store.reserve_tokens(1).result(DONE_S)
    assert (tmp_path / "jobs.db-wal").stat().st_size < 2**20
    store.close()
    connection = connect_reader(tmp_path / "jobs.db")
    assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (3000,)
    connection.close()


def test_a_disk_that_hangs_or_refuses_says_so(tmp_path: Path) -> None:
    gate = Gate()
    store = opened(tmp_path, gate, stuck_s=0.0)
    assert store.fault() is None
    waiting = held_up(store, gate, 1)
    assert "has not finished a write" in str(store.fault())
    gate.open()
    waiting.result(DONE_S)
    store.reserve_tokens(1).result(DONE_S)
    gate.fail_next = OSError(errno.EIO, "as a test wants it")
    with pytest.raises(EnvironmentFault):
        store.add(part(2, [2])).result(DONE_S)
    assert "as a test wants it" in str(store.fault())
    store.add(part(3, [3])).result(DONE_S)
    store.close()
    assert store.fault() is None


def test_a_disk_below_its_reserve_says_so(tmp_path: Path) -> None:
    store = opened(tmp_path, Gate(), min_free_bytes=2**62)
    assert "free bytes" in str(store.fault())
    store.close()
