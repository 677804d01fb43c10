"""What growth costs the core: simulated workers × queued jobs.

    python -m tests.bench.scale_bench [--seconds S] [--workers 3,100,1000]
        [--queued 10,10000,1000000] [--rate JOBS_PER_S]

Each cell starts a core on a data directory that holds so many open jobs (their
recovery is timed), joins so many workers (`tests.bench.swarm`: one connection each,
whole protocol, heartbeats) and lets a job come for each that ends. All cells do
`--rate` jobs a second, well below the limit, so that CPU per job and latency compare.

- start s: from the start of the process until it serves, recovery included
- core CPU ms: of the core's process per job, heartbeats included
- idle p50, p99 ms: between the end of a job at a worker and the arrival of its next
- RSS MB: of the core, after the measurement
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from master.store import StoreConfig, open_store
from master.store.base import NewJob, NewPart
from tests.bench.machine import cpu_name, cpu_s
from tests.fakes.cluster import Cluster
from tests.fakes.process import Process

IMAGE_BYTES = 1_000
PART_JOBS = 500
WARM_UP_S = 3.0
SLOTS_MAX = 8
LIMIT_JOBS = 1_000_000


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    workers: int
    queued: int
    start_s: float
    per_s: float
    core_cpu_ms: float
    idle_p50_ms: float
    idle_p99_ms: float
    rss_mb: float


def fill(directory: Path, jobs: int) -> None:
    """Put open jobs into a data directory, as a core that died would leave them."""
    store = open_store(directory, StoreConfig())
    image = bytes(IMAGE_BYTES)
    first = store.totals().next_job
    for start in range(first, first + jobs, PART_JOBS):
        numbers = range(start, min(first + jobs, start + PART_JOBS))
        rows = [NewJob(job, "a.jpg", "image/jpeg", image) for job in numbers]
        write = store.add(NewPart(start, rows, time.time(), None, first=True, last=True))
        if start // PART_JOBS % 50 == 0:
            write.result()
    store.close()


def measure(folder: Path, workers: int, queued: int, options: argparse.Namespace) -> Cell:
    """One cell, on a data directory that already holds the jobs."""
    slots = max(1, SLOTS_MAX if workers <= 10 else 1)
    service_ms = 1000 * workers * slots / options.rate
    lookout = Cluster(folder, workers=0, web=False, model="squeezenet1_1")
    began = time.monotonic()
    with lookout:
        start_s = time.monotonic() - began
        assert lookout.core is not None
        swarm = lookout.spawn(
            "swarm",
            ["-m", "tests.bench.swarm", lookout.core_address,
             "--token-file", str(lookout.token_file),
             "--workers", str(workers), "--slots", str(slots),
             "--service-ms", f"{service_ms:.3f}",
             "--feed", f"unix:{lookout.socket_path}",
             "--feed-first", str(workers * slots if queued < LIMIT_JOBS // 2 else 0)],
        )  # fmt: skip
        swarm.wait_line("^READY$", timeout_s=120.0)
        # Every slot has had its first job after one service time.
        time.sleep(WARM_UP_S + service_ms / 1000)
        return _window(lookout, swarm, workers, queued, start_s, options.seconds)


def _window(
    lookout: Cluster, swarm: Process, workers: int, queued: int, start_s: float, seconds: float
) -> Cell:
    core = lookout.core
    assert core is not None
    swarm.signal(signal.SIGUSR1)
    cpu = cpu_s(core.pid)
    time.sleep(seconds)
    swarm.signal(signal.SIGTERM)
    spent_s = cpu_s(core.pid) - cpu
    rss_mb = psutil.Process(core.pid).memory_info().rss / 1e6
    out = json.loads(swarm.wait_line(r'^\{"refused".*\}$', timeout_s=30.0)[0])
    swarm.wait(10.0)
    if out["refused"] or not out["done"]:
        raise AssertionError(f"{workers} workers, {queued} queued: {out}")
    return Cell(
        workers, queued, start_s, out["done"] / out["elapsed_s"], 1000 * spent_s / out["done"],
        out["idle_p50_ms"], out["idle_p99_ms"], rss_mb,
    )  # fmt: skip


def line(cell: Cell, base: Cell) -> str:
    """One row of the table."""
    return (
        f"| {cell.workers:,} | {cell.queued:,} | {cell.start_s:.1f} | {cell.per_s:,.0f} "
        f"| {cell.core_cpu_ms:.3f} | {cell.core_cpu_ms / base.core_cpu_ms:.2f} "
        f"| {cell.idle_p50_ms:.2f} | {cell.idle_p99_ms:.2f} | {cell.rss_mb:.0f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--workers", default="3,100,1000")
    parser.add_argument("--queued", default="10,10000,1000000")
    options = parser.parse_args(arguments)
    workers = [int(text) for text in options.workers.split(",")]
    print(
        f"{cpu_name()}, {psutil.cpu_count()} CPUs, Python {platform.python_version()}; "
        f"jobs of {IMAGE_BYTES} bytes, {options.rate:.0f} a second\n"
    )
    print("| workers | queued | start s | jobs/s | core CPU ms | ratio | idle p50 ms | idle p99 ms "
          "| RSS MB |")  # fmt: skip
    print("|---" * 9 + "|", flush=True)
    base: Cell | None = None
    for queued in (int(text) for text in options.queued.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            data.mkdir(mode=0o700)
            # Room for what is in flight: the core refuses more than a million open jobs.
            fill(data, min(queued, LIMIT_JOBS - 2 * max(workers)))
            for count in workers:
                cell = measure(Path(folder), count, queued, options)
                base = base or cell
                print(line(cell, base), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
