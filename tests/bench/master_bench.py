"""What the master costs: core and web with workers that infer nothing, all on this machine.

    python -m tests.bench.master_bench [--rounds N] [--only NAME] [--quick]

Core, web, simulated workers (`tests.bench.swarm`) and the load generator share
the machine's cores, so images/s is what all four leave each other; the CPU of
each is told apart, per job. Every job is durable before its 202. Rows are
interleaved and given as median with the smallest and the largest round; only
rows of one run compare.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.http_load import form_body, post_request, run_load
from tests.bench.machine import cpu_name, cpu_s
from tests.bench.table import table
from tests.fakes.cluster import Cluster
from tests.fakes.process import Process
from tests.shared import make_jpeg, wait_until

SWARM_WORKERS = 4
SWARM_SLOTS = 16


@dataclass(frozen=True)
class Case:
    """One row: what is sent, how often, how many at once."""

    name: str
    requests: int
    concurrency: int
    image_bytes: int
    images: int = 1
    wait: bool = False


CASES = (
    Case("100 kB, raw body", 8_000, 128, 100_000),
    Case("1 kB, raw body", 20_000, 256, 1_000),
    Case("100 kB, form of 32 images", 250, 8, 100_000, images=32),
    Case("100 kB, waits for the result", 5_000, 128, 100_000, wait=True),
)


@dataclass(frozen=True)
class Row:
    """One round of a case. CPU is per image, in milliseconds."""

    images_per_s: float
    p50_ms: float
    p99_ms: float
    core_ms: float
    web_ms: float
    swarm_ms: float
    load_ms: float
    drained_per_s: float


COLUMNS: Sequence[tuple[str, Callable[[Row], float]]] = (
    ("durable images/s", lambda row: row.images_per_s),
    ("done/s", lambda row: row.drained_per_s),
    ("p50 ms", lambda row: row.p50_ms),
    ("p99 ms", lambda row: row.p99_ms),
    ("core CPU ms", lambda row: row.core_ms),
    ("web CPU ms", lambda row: row.web_ms),
    ("workers CPU ms", lambda row: row.swarm_ms),
    ("generator CPU ms", lambda row: row.load_ms),
)


def start_swarm(lookout: Cluster, *arguments: str) -> Process:
    """Simulated workers in one process, joined and ready."""
    process = lookout.spawn(
        "swarm",
        ["-m", "tests.bench.swarm", lookout.core_address,
         "--token-file", str(lookout.token_file), *arguments],
    )  # fmt: skip
    process.wait_line("^READY$", timeout_s=60.0)
    return process


def _requests(case: Case, host: str) -> list[bytes]:
    # Nobody decodes: only the number of bytes matters.
    images = [
        make_jpeg(seed, (24, 24), 60)[:900].ljust(case.image_bytes, b"\0") for seed in range(8)
    ]
    path = "/api/v1/jobs" + ("?wait=60" if case.wait else "")
    if case.images == 1:
        return [post_request(path, host, image, ["Content-Type: image/jpeg"]) for image in images]
    kind, body = form_body((images * case.images)[: case.images])
    return [post_request(path, host, body, [f"Content-Type: {kind}"])]


def _succeeded(lookout: Cluster) -> int:
    with lookout.client() as http:
        return int(http.get("/stats").json()["counts"]["succeeded"])


def measure(lookout: Cluster, swarm: Process, case: Case, requests: int) -> Row:
    """One round; it ends when the last job has its durable outcome."""
    assert lookout.core is not None and lookout.web is not None
    host, port = lookout.url.removeprefix("http://").split(":")
    pids = lookout.core.pid, lookout.web.pid, swarm.pid
    done_before = _succeeded(lookout)
    before = [cpu_s(pid) for pid in pids]
    result = run_load(
        host, int(port), _requests(case, f"{host}:{port}"), case.concurrency, requests
    )
    if set(result.statuses) - {200, 202}:
        raise AssertionError(f"{case.name}: answers {result.statuses}")
    clock = time.perf_counter()
    jobs = requests * case.images
    wait_until(lambda: _succeeded(lookout) >= done_before + jobs, 120, "the last outcome")
    drained_s = result.elapsed_s + (time.perf_counter() - clock)
    core, web, workers = (
        1000 * (cpu_s(pid) - cpu) / jobs for pid, cpu in zip(pids, before, strict=True)
    )
    return Row(
        images_per_s=result.per_second * case.images,
        p50_ms=result.percentile_ms(50),
        p99_ms=result.percentile_ms(99),
        core_ms=core,
        web_ms=web,
        swarm_ms=workers,
        load_ms=1000 * result.cpu_s / jobs,
        drained_per_s=jobs / drained_s,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests")
    options = parser.parse_args(arguments)
    cases = [case for case in CASES if not options.only or options.only in case.name]
    print(
        f"{cpu_name()}, {psutil.cpu_count()} CPUs, Python {platform.python_version()}; "
        f"{SWARM_WORKERS} simulated workers with {SWARM_SLOTS} slots; CPU per image\n"
    )
    rows: dict[str, list[Row]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder), workers=0, model="squeezenet1_1") as lookout,
    ):
        swarm = start_swarm(lookout, "--workers", str(SWARM_WORKERS), "--slots", str(SWARM_SLOTS))
        for number in range(options.rounds + 1):
            for case in cases:
                requests = case.requests // (4 if options.quick or number == 0 else 1)
                row = measure(lookout, swarm, case, requests)
                if number:  # the first round warms caches, files and the interpreter up
                    rows.setdefault(case.name, []).append(row)
                with lookout.client() as http:
                    http.delete("/jobs").raise_for_status()
        swarm.term()
        swarm.wait(10.0)
    print(table(COLUMNS, rows))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
