"""The service over HTTP on one machine: images/s, latency, and what a job costs the core.

    python -m tests.bench.service_bench [--rounds N] [--model squeezenet1_1] [--quick]

Two parts, each repeated and reported as median with minimum and maximum:

1. two local workers and a real model, photographs of about 100 kB, a closed
   loop of 32 requests that wait for their result;
2. null workers (they answer at once), so that what is left is the web, the
   core, the wire and the disk: 100 kB and 1 kB bodies, durable before the 202.

Figures of one machine at one moment: compare rows of one run, not of two.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.http_load import LoadResult, post_request, run_load
from tests.bench.machine import cpu_s
from tests.bench.table import table
from tests.fakes.cluster import Cluster
from tests.shared import make_jpeg, wait_until

CONCURRENCY = 32


@dataclass(frozen=True)
class Case:
    """One row: what is sent, how often, to which workers."""

    name: str
    bodies: Sequence[bytes]
    requests: int
    wait: bool
    null_workers: bool


@dataclass(frozen=True)
class Row:
    """One round of a case. CPU is per job, in milliseconds."""

    images_per_s: float
    p50_ms: float
    p99_ms: float
    core_cpu_ms: float
    web_cpu_ms: float
    drained_per_s: float


def _succeeded(lookout: Cluster) -> int:
    with lookout.client() as http:
        return int(http.get("/stats").json()["counts"]["succeeded"])


def measure(lookout: Cluster, case: Case) -> Row:
    """One round; the row counts until the last job has its outcome."""
    assert lookout.core is not None and lookout.web is not None
    host, port = lookout.url.removeprefix("http://").split(":")
    headers = ["Content-Type: image/jpeg"]
    if case.wait:
        headers.append("Prefer: wait=60")
    requests = [
        post_request("/api/v1/jobs", f"{host}:{port}", body, headers) for body in case.bodies
    ]
    before = cpu_s(lookout.core.pid), cpu_s(lookout.web.pid), _succeeded(lookout)
    result: LoadResult = run_load(host, int(port), requests, CONCURRENCY, case.requests)
    if set(result.statuses) - {200, 202}:
        raise AssertionError(f"{case.name}: answers {result.statuses}")
    clock = time.perf_counter()
    wanted = before[2] + case.requests
    wait_until(lambda: _succeeded(lookout) >= wanted, 120, "the last outcome")
    drained_s = result.elapsed_s + (time.perf_counter() - clock)
    core = cpu_s(lookout.core.pid) - before[0]
    web = cpu_s(lookout.web.pid) - before[1]
    return Row(
        images_per_s=result.per_second,
        p50_ms=result.percentile_ms(50),
        p99_ms=result.percentile_ms(99),
        core_cpu_ms=1000 * core / case.requests,
        web_cpu_ms=1000 * web / case.requests,
        drained_per_s=case.requests / drained_s,
    )


def _cases(quick: bool) -> list[Case]:
    photographs = [make_jpeg(seed, (1600, 1200), 94) for seed in range(8)]
    # Null workers don't decode: only the number of bytes matters.
    large = [make_jpeg(seed, (64, 64)).ljust(100_000, b"\0") for seed in range(8)]
    small = [make_jpeg(seed, (24, 24), 60)[:1024].ljust(1024, b"\0") for seed in range(8)]
    scale = 1 if quick else 4
    return [
        Case("2 workers, wait for result", photographs, 100 * scale, True, False),
        Case("null workers, 100 kB, wait", large, 1000 * scale, True, True),
        Case("null workers, 100 kB", large, 1000 * scale, False, True),
        Case("null workers, 1 kB", small, 2000 * scale, False, True),
    ]


COLUMNS: list[tuple[str, Callable[[Row], float]]] = [
    ("images/s", lambda row: row.images_per_s),
    ("p50 ms", lambda row: row.p50_ms),
    ("p99 ms", lambda row: row.p99_ms),
    ("core ms/job", lambda row: row.core_cpu_ms),
    ("web ms/job", lambda row: row.web_cpu_ms),
    ("done/s", lambda row: row.drained_per_s),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests")
    options = parser.parse_args(arguments)
    rows: dict[str, list[Row]] = {}
    cases = _cases(options.quick)
    print(
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, {options.model}, concurrency {CONCURRENCY}"
    )
    for null in (False, True):
        flags = ["--engine", "null", "--enable-fault-hooks"] if null else []
        with (
            tempfile.TemporaryDirectory() as folder,
            Cluster(Path(folder), workers=2, model=options.model, worker_args=flags) as lookout,
        ):
            lookout.wait_ready()
            for _ in range(options.rounds):
                for case in cases:
                    if case.null_workers == null:
                        rows.setdefault(case.name, []).append(measure(lookout, case))
    print(table(COLUMNS, rows))


if __name__ == "__main__":
    main()
