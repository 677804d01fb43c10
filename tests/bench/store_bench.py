"""What durability costs: `python -m tests.bench.store_bench [flow] [busy] [recovery] [remove]`.

`flow`: a closed loop like the core's. Each of N slots adds a job, and when that is
durable writes its attempt and its outcome, and when these are durable adds the next.
`busy`: the same beside a thread that never gives up the GIL by itself, as an event loop
at its limit, with Python's switch interval of 5 ms and with 0.5 ms.
`recovery`: opening a table of 10^6 open jobs and streaming them. `remove`: clearing 10^5.

Each row is the median over several runs with the smallest and the largest, because other
work on the machine moves single runs; runs of different rows are interleaved. CPU is that
of the whole process: the caller's share, checksums and the writer. The disk is that of
--dir: compare its sync time before you compare anything else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import resource
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from master.states import JobState, Outcome
from master.store import SqliteStore, StoreConfig, open_store
from master.store.base import AttemptEnd, JobEnd, NewJob, NewPart
from master.store.stats import quantile
from master.store.write import Write

TOP5: Final = b"[" + b",".join([b'{"label":"a dog","class_id":207,"confidence":0.91}'] * 5) + b"]"
NOW_S: Final = 1_700_000_000.0
RECOVERY_JOBS: Final = 1_000_000

Row = dict[str, float]


@dataclass(frozen=True, slots=True)
class Flow:
    """One row: so many jobs of this size, so many at once."""

    image_bytes: int
    at_once: int
    jobs: int
    switch_interval_s: float | None = None

    @property
    def name(self) -> str:
        spin = "" if self.switch_interval_s is None else f", GIL {self.switch_interval_s * 1e3} ms"
        return f"{self.image_bytes // 1000} kB, {self.at_once} at once{spin}"


FLOWS: Final = [
    Flow(1_000, 32, 5_000),
    Flow(1_000, 256, 20_000),
    Flow(100_000, 32, 2_000),
    Flow(100_000, 256, 4_000),
]
BUSY: Final = [
    Flow(1_000, 32, 400, 0.005),
    Flow(1_000, 256, 2_000, 0.005),
    Flow(1_000, 256, 4_000, 0.0005),
]


# --- the closed loop -----------------------------------------------------------------------


class Loop:
    """Plays the core: acts on what became durable, in the order in which it did."""

    def __init__(self, store: SqliteStore, flow: Flow) -> None:
        self._store = store
        self._flow = flow
        self._image = os.urandom(flow.image_bytes)
        self._asked: dict[Write[Any], tuple[str, int, float]] = {}
        self.added_s: list[float] = []
        self._next = 1
        self._ended = 0

    def run(self, durable: queue.SimpleQueue[Sequence[Write[Any]]]) -> None:
        for _ in range(self._flow.at_once):
            self._add()
        while self._ended < self._flow.jobs:
            for future in durable.get(timeout=60):
                future.result(0)
                self._durable(*self._asked.pop(future, ("", 0, 0.0)))

    def _durable(self, what: str, job: int, asked_s: float) -> None:
        if what == "add":
            self.added_s.append(time.perf_counter() - asked_s)
            self._end(job)
        elif what == "end":
            self._ended += 1
            if self._next <= self._flow.jobs:
                self._add()

    def _add(self) -> None:
        job, self._next = self._next, self._next + 1
        jobs = [NewJob(job, f"{job}.jpg", "image/jpeg", self._image)]
        future = self._store.add(NewPart(job, jobs, NOW_S, None, True, True))
        self._asked[future] = ("add", job, time.perf_counter())

    def _end(self, job: int) -> None:
        self._store.record(
            AttemptEnd(job, job, "worker", Outcome.SUCCEEDED, NOW_S, NOW_S, NOW_S, False, None, "")
        )
        end = JobEnd(
            job, JobState.SUCCEEDED, 1, NOW_S, NOW_S, "worker", "googlenet", job, TOP5, b'{"a":1}'
        )
        self._asked[self._store.finish(end)] = ("end", job, 0.0)


def flow(shape: Flow, root: Path) -> Row:
    """One run in a directory of its own."""
    directory = Path(tempfile.mkdtemp(dir=root))
    durable: queue.SimpleQueue[Sequence[Write[Any]]] = queue.SimpleQueue()
    store = open_store(directory, StoreConfig(notify=durable.put))
    loop = Loop(store, shape)
    over = threading.Event()
    if shape.switch_interval_s is not None:
        sys.setswitchinterval(shape.switch_interval_s)
        threading.Thread(target=_spin, args=(over,), daemon=True).start()
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    loop.run(durable)
    elapsed_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    over.set()
    stats = store.stats()
    store.close()
    shutil.rmtree(directory)
    busy = shape.switch_interval_s is not None
    return {
        "jobs/s": shape.jobs / elapsed_s,
        "add p50 ms": quantile(loop.added_s, 0.5) * 1e3,
        "add p99 ms": quantile(loop.added_s, 0.99) * 1e3,
        "commit p50 ms": stats.commit_p50_s * 1e3,
        "commit p99 ms": stats.commit_p99_s * 1e3,
        "sync p50 ms": stats.sync_p50_s * 1e3,
        "ops a group": stats.ops / stats.commits,
        "CPU us a job": float("nan") if busy else cpu_s / shape.jobs * 1e6,
        "writer us": stats.writer_cpu_s / shape.jobs * 1e6,
    }


def _spin(over: threading.Event) -> None:
    while not over.is_set():
        sum(range(1000))


# --- large tables --------------------------------------------------------------------------


def build(directory: Path, jobs: int, state: str | None) -> None:
    """A table with so many jobs, written with SQL; a tenth had an attempt before."""
    open_store(directory).close()
    db = sqlite3.connect(directory / "jobs.db")
    db.execute("PRAGMA synchronous = OFF")
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs}) "
    db.execute(numbers + f"INSERT INTO submissions SELECT i, {NOW_S}, 0 FROM n")
    db.execute(
        numbers + "INSERT INTO jobs (job, submission, name, media_type, segment, offset_bytes, "
        "size_bytes, crc32, submitted_at, state, finished_at) SELECT i, i, 'photo' || i || '.jpg', "
        f"'image/jpeg', 1, i * 100, 100, 0, {NOW_S}, ?, ? FROM n",
        (state, None if state is None else NOW_S),
    )
    db.execute(
        numbers + "INSERT INTO attempts SELECT i, i, 'w', 'lost', 1, 1, 1, i % 100 = 0, NULL, '' "
        "FROM n WHERE i % 10 = 0"
    )
    size = (jobs + 1) * 100
    db.execute("INSERT INTO segments VALUES (1, ?, ?, ?)", (size, jobs, jobs * 100))
    db.execute("UPDATE meta SET last_job = ?1, last_submission = ?1, last_segment = 1", (jobs,))
    db.commit()
    db.close()
    with (directory / "images" / "00000001.seg").open("wb") as file:
        file.truncate(size)


def recovery(directory: Path) -> Row:
    """Open and stream; memory is the growth of this process, which was made for this."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun_s = time.perf_counter()
    store = open_store(directory)
    opened_s = time.perf_counter()
    jobs = sum(1 for _ in store.unfinished())
    over_s = time.perf_counter()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    store.close()
    assert jobs == RECOVERY_JOBS
    return {
        "open s": opened_s - begun_s,
        "stream s": over_s - opened_s,
        "total s": over_s - begun_s,
        "RSS grown MB": grown / 1024,
    }


def remove(root: Path) -> Row:
    """Clear 10^5 ended jobs while one job after another is added."""
    directory = Path(tempfile.mkdtemp(dir=root))
    build(directory, 100_000, "succeeded")
    store = open_store(directory)
    begun_s = time.perf_counter()
    removal = store.remove(None)
    waits: list[float] = []
    job = store.totals().next_job
    while not removal.done():
        asked_s = time.perf_counter()
        jobs = [NewJob(job, "x", "image/jpeg", b"x" * 1000)]
        store.add(NewPart(job, jobs, NOW_S, None, True, True)).result(60)
        waits.append(time.perf_counter() - asked_s)
        job += 1
    elapsed_s = time.perf_counter() - begun_s
    assert len(removal.result()) == 100_000
    store.close()
    shutil.rmtree(directory)
    return {
        "jobs/s": 100_000 / elapsed_s,
        "add p50 ms": quantile(waits, 0.5) * 1e3,
        "add max ms": max(waits) * 1e3,
    }


# --- the table -----------------------------------------------------------------------------


def measure(cases: Sequence[tuple[str, Callable[..., Row], tuple[Any, ...]]], runs: int) -> None:
    """Run every case in a process of its own, interleaved, and print medians with spreads."""
    spawn = multiprocessing.get_context("spawn")
    found: dict[str, list[Row]] = {name: [] for name, _, _ in cases}
    for _ in range(runs):
        for name, function, arguments in cases:
            with spawn.Pool(1) as pool:
                found[name].append(pool.apply(function, arguments))
    columns = list(next(iter(found.values()))[0])
    print("| " + " | ".join(["", *columns]) + " |")
    print("|" + "---|" * (len(columns) + 1))
    for name, rows in found.items():
        cells = [_cell([row[column] for row in rows]) for column in columns]
        print("| " + " | ".join([name, *cells]) + " |", flush=True)
    print()


def _cell(values: Sequence[float]) -> str:
    if any(value != value for value in values):
        return "-"
    middle = statistics.median(values)
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    low, high = min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["flow", "busy", "recovery", "remove"])
    parser.add_argument("--dir", type=Path, help="on the disk to measure (default: temporary)")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="store_bench", dir=asked.dir))
    try:
        if "flow" in asked.parts:
            measure([(shape.name, flow, (shape, root)) for shape in FLOWS], asked.runs)
        if "busy" in asked.parts:
            measure([(shape.name, flow, (shape, root)) for shape in BUSY], asked.runs)
        if "recovery" in asked.parts:
            build(root / "open", RECOVERY_JOBS, None)
            measure([("10^6 open jobs", recovery, (root / "open",))], asked.runs)
        if "remove" in asked.parts:
            measure([("10^5 ended jobs", remove, (root,))], asked.runs)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
