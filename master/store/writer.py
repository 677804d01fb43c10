"""The one thread that writes: takes what waits, makes it durable in one go, tells everybody.

A group is one gathered write and sync of image bytes, then one SQLite transaction
(one more sync). Futures resolve after both. An op that can't be carried out fails
alone. A disk that refuses (full, broken) fails the adds of the group, keeps
nothing of them, and everything else is tried again, with growing pauses, until the
disk takes it: a result is not lost because the disk was full for a minute.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from master.store.config import StoreConfig
from master.store.counters import Counters
from master.store.disk import failed_fault, free_bytes, full_fault, is_environment, is_full
from master.store.images import Segments
from master.store.ops import Add, Op, Probe, Remove, Stop, is_patient
from master.store.stats import Meter
from master.store.table import Change, apply
from master.store.write import Write
from wire.errors import EnvironmentFault, LocalFault, LookoutError

log = logging.getLogger("lookout.store")

RETRY_MIN_S: Final = 0.05
REFUSAL_SHOWN_S: Final = 30.0
"""How long a refused upload is reported: another one may not come to show that it is over."""


class Writer:
    """Owns the writing connection and the segment files."""

    def __init__(
        self,
        db: sqlite3.Connection,
        segments: Segments,
        directory: Path,
        config: StoreConfig,
        counters: Counters,
        meter: Meter,
    ) -> None:
        self._db = db
        self._segments = segments
        self._directory = directory
        self._config = config
        self._counters = counters
        self._meter = meter
        self._queue: queue.SimpleQueue[Op] = queue.SimpleQueue()
        self._hurry = threading.Event()  # something in the queue is not patient
        self._carried: list[Op] = []  # not finished by the last group: goes into the next
        self._retry_s = 0.0
        self._stopped = False
        self._give_up_at = 0.0
        self._started_at = 0.0
        self._group_ops = 0
        self._writing_since: float | None = None
        self._images_refused: tuple[EnvironmentFault | None, float] = (None, 0.0)
        self._checkpointed = 0
        self.failing: EnvironmentFault | None = None
        self.patience_s = 0.0
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    # --- asked from other threads ----------------------------------------------------------

    def put(self, op: Op) -> None:
        """Queue an op; its future resolves when it is durable or has failed."""
        self._queue.put(op)
        if not is_patient(op):
            self._hurry.set()

    def fault(self) -> str | None:
        """Why nothing becomes durable: the disk refuses, or doesn't come back from a write."""
        failing, since = self.failing, self._writing_since
        if failing is not None:
            return failing.reason
        refused, refused_at = self._images_refused
        if refused is not None and time.monotonic() - refused_at < REFUSAL_SHOWN_S:
            return refused.reason
        with contextlib.suppress(OSError):
            if free_bytes(self._directory) < self._config.min_free_bytes:
                return full_fault(self._directory, 0, self._config.min_free_bytes).reason
        if since is None or (stuck_s := time.monotonic() - since) < self._config.stuck_s:
            return None
        return f"{self._directory} has not finished a write for {stuck_s:.0f} s"

    def stop(self) -> None:
        """Write what was asked for, then end the thread and close the connection."""
        self._give_up_at = time.monotonic() + self._config.close_timeout_s
        self.put(Stop())
        self._thread.join()

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped or self._carried:
            if self._retry_s:
                self._wait_for_disk()
            ops = self._take()
            self._writing_since = time.monotonic()
            try:
                self._write(ops)
            except Exception as error:  # the edge of the thread: it must not die
                log.exception("store_writer_failed ops=%d", len(ops))
                self._abort()
                self._fail(ops, failed_fault(self._directory, error))
            self._writing_since = None
        late = self._drain(self._config.queue_ops_max, self._config.queue_bytes_max)
        self._fail(late, LocalFault("the store is closed"))
        self._segments.close()
        self._db.close()

    def _wait_for_disk(self) -> None:
        """Until it is time to try again, adds fail at once and everything else is kept."""
        until = time.monotonic() + (RETRY_MIN_S if self._stopped else self._retry_s)
        while (wait_s := until - time.monotonic()) > 0:
            try:
                op = self._queue.get(timeout=wait_s)
            except queue.Empty:
                break
            if isinstance(op, Stop):
                self._stopped = True
                break
            self._carried += self._write_images([op])
        if self._stopped and time.monotonic() > self._give_up_at:
            self._give_up()

    def _take(self) -> list[Op]:
        """What the last group left, and all that waits, within the bounds of a group."""
        ops, self._carried = self._carried, []
        size = 0
        if not ops and not self._stopped:
            first = self._queue.get()
            self._stopped = isinstance(first, Stop)
            ops, size = [] if self._stopped else [first], _size(first)
        config = self._config
        if not self._stopped:
            self._pace()
            self._hurry.clear()  # before the queue is read: what comes later sets it again
            ops += self._drain(config.group_ops_max - len(ops), config.group_bytes_max - size)
        return ops

    def _drain(self, ops_max: int, bytes_max: int) -> list[Op]:
        """Up to so many ops that wait, and no more once they hold so many bytes."""
        ops: list[Op] = []
        while len(ops) < ops_max and bytes_max >= 0:
            try:
                op = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(op, Stop):
                self._stopped = True
                break
            ops.append(op)
            bytes_max -= _size(op)
        return ops

    def _pace(self) -> None:
        """Keep commits apart under load; after a quiet moment there is nothing to wait for."""
        config = self._config
        if self._queue.qsize() >= config.group_ops_max:
            return
        interval_s = min(config.group_interval_s, self._group_ops * config.group_op_s)
        wait_s = self._started_at + interval_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        wait_s = self._started_at + self.patience_s - time.monotonic()
        if wait_s > 0:
            self._hurry.wait(wait_s)

    def _write(self, ops: list[Op]) -> None:
        self._started_at = time.monotonic()
        self._group_ops = len(ops)
        ops = self._write_images(ops)
        if not ops:
            return
        try:
            change = self._transact(ops)
        except Exception as error:  # one op's bug may not take the others with it
            self._abort()
            self._after_failure(ops, error)
        else:
            self._settle(ops, change)

    # --- images ----------------------------------------------------------------------------

    def _write_images(self, ops: list[Op]) -> list[Op]:
        """Write the group's images; returns the ops that are still to be done."""
        adds = [op for op in ops if isinstance(op, Add)]
        if not adds:
            return ops
        fault = self._refuse(adds) or self._append(adds)
        self._images_refused = fault, time.monotonic()
        if fault is None:
            return ops
        self._fail(adds, fault)
        return [op for op in ops if not isinstance(op, Add)]

    def _refuse(self, adds: Sequence[Add]) -> EnvironmentFault | None:
        """Why these adds can't be taken: the reserve, or a disk known to refuse."""
        if self.failing is not None:
            return self.failing
        needed = sum(op.size_bytes for op in adds)
        reserve = self._config.min_free_bytes
        try:
            room = free_bytes(self._directory) - needed >= reserve
        except OSError as error:
            return failed_fault(self._directory, error)
        return None if room else full_fault(self._directory, needed, reserve)

    def _append(self, adds: Sequence[Add]) -> EnvironmentFault | None:
        images = [job.image for op in adds for job in op.part.jobs]
        crcs = [crc for op in adds for crc in op.crcs]
        try:
            places = self._segments.append(images, crcs)
        except OSError as error:
            self._segments.roll_back(spoiled=not is_full(error))
            return self._fault(error, adds)
        start = 0
        for op in adds:
            op.places = places[start : start + len(op.part.jobs)]
            start += len(op.part.jobs)
        return None

    def _fault(self, error: BaseException, adds: Sequence[Add]) -> EnvironmentFault:
        if is_full(error):
            needed = sum(op.size_bytes for op in adds)
            return full_fault(self._directory, needed, self._config.min_free_bytes)
        return failed_fault(self._directory, error)

    # --- the transaction -------------------------------------------------------------------

    def _transact(self, ops: Sequence[Op]) -> Change:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        change = apply(db, ops, self._config, self._segments.tail, self._counters.keys)
        db.execute("COMMIT")
        return change

    def _abort(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        self._segments.roll_back()

    def _after_failure(self, ops: list[Op], error: Exception) -> None:
        self._meter.groups_failed += 1
        if is_environment(error):
            self._refused(ops, error)
        elif len(ops) == 1:
            self._fail(ops, error)
        else:
            # One of them is wrong; alone it fails alone. Adds write their images again.
            for op in ops:
                self._write([op])

    def _refused(self, ops: list[Op], error: Exception) -> None:
        """The disk did not take the group: adds fail, the rest is tried again."""
        adds = [op for op in ops if isinstance(op, Add)]
        fault = self._fault(error, adds)
        self._fail(adds, fault)
        rest = [op for op in ops if not isinstance(op, Add | Probe)]
        self._carried += [Probe(), *rest]
        self._retry_s = min(max(RETRY_MIN_S, 2 * self._retry_s), self._config.retry_max_s)
        self.failing = fault
        log.error(
            "store_refused error=%r kept_ops=%d retry_in_s=%.2f", error, len(rest), self._retry_s
        )

    def _give_up(self) -> None:
        ops, self._carried, self._retry_s = self._carried, [], 0.0
        fault = self.failing or EnvironmentFault("storage_failed", "the disk refused writes")
        log.error("store_gave_up ops=%d reason=%s", len(ops), fault)
        self._fail(ops, fault)

    # --- after the commit --------------------------------------------------------------------

    def _settle(self, ops: Sequence[Op], change: Change) -> None:
        self._segments.commit()
        self._counters.apply(change)
        self._retry_s, self.failing = 0.0, None
        # A long removal goes on in the next group.
        unfinished = [op for op in ops if isinstance(op, Remove) and not op.advance()]
        self._carried += unfinished
        self._segments.delete(change.segments_empty)
        self._segments.free(change.removed)
        elapsed_s = time.monotonic() - self._started_at
        self._meter.committed(len(ops), elapsed_s, time.thread_time())
        self._resolve([op for op in ops if op not in unfinished], None)
        self._checkpoint()

    def _fail(self, ops: Sequence[Op], error: Exception) -> None:
        if not isinstance(error, LookoutError):
            log.error("store_op_refused ops=%r", ops, exc_info=error)
            error = LocalFault(f"the store refused a write that breaks an invariant: {error!r}")
        self._resolve(ops, error)

    def _resolve(self, ops: Sequence[Op], error: Exception | None) -> None:
        """Tell everybody; the first callback of each future runs here."""
        told = [op for op in ops if not isinstance(op, Probe) and not op.future.done()]
        self._counters.answered(len(told), sum(map(_size, told)))
        for op in told:
            if error is None:
                op.future.set_result(op.outcome)
            else:
                op.future.set_exception(error)
        if self._config.notify is not None and told:
            futures: list[Write[Any]] = [op.future for op in told]
            try:
                self._config.notify(futures)
            except Exception:  # somebody else's code at the edge of the thread
                log.exception("store_notify_failed")

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the database now and then, after people were told."""
        if self._db.total_changes - self._checkpointed < self._config.checkpoint_rows:
            return
        self._checkpointed = self._db.total_changes
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # Nothing is lost: the log keeps what was not moved, and the next one tries again.
            log.error("store_checkpoint_failed error=%r", error)


def _size(op: Op) -> int:
    return op.size_bytes if isinstance(op, Add) else 0
