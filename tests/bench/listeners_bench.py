"""What browsers that only look cost: the same load beside none and beside many event streams.

    python -m tests.bench.listeners_bench [--listeners 500] [--rounds 10] [--real]

A real core and a real web process; null workers, which answer at once, so that
the web and the core are what is measured (`--real`: two workers with a model).
A closed loop of requests wait for their results. Each round measures both arms
in a web process of its own that nobody has listened to before, in an order that
changes from round to round; the ratio is taken within each round, and its
interval is bootstrapped over the rounds. The listeners accept gzip, as every browser
does, and sit in one process that counts and drops what comes (`MSG_TRUNC`).

In both arms the cluster runs on the first CPUs and the load and the listeners on the
last one, as browsers run on machines of their own: what they cost themselves can't be
taken from the server. The kernel's share of sending is the server's and stays there.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import selectors
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from experiments.statistics import ratio
from tests.bench.http_load import post_request, run_load
from tests.bench.machine import cpu_s
from tests.bench.table import table
from tests.fakes.cluster import Cluster
from tests.shared import make_jpeg

CONCURRENCY = 32
GREETING_S = 30.0
STOP_S = 15.0
LOG_CHARACTERS = 4000
DROP_BYTES = 2**20
REQUEST = (
    b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
    b"Accept-Encoding: gzip\r\n\r\n"
)


@dataclass(frozen=True)
class Row:
    """One arm of one round."""

    jobs_per_s: float
    p99_ms: float
    web_us_per_job: float
    core_us_per_job: float
    web_cpu_percent: float
    web_mib: float
    listener_kb_per_s: float
    beside_cpu_percent: float


COLUMNS: Sequence[tuple[str, Callable[[Row], float]]] = (
    ("jobs/s", lambda row: row.jobs_per_s),
    ("p99 ms", lambda row: row.p99_ms),
    ("web CPU µs/job", lambda row: row.web_us_per_job),
    ("core CPU µs/job", lambda row: row.core_us_per_job),
    ("web CPU %", lambda row: row.web_cpu_percent),
    ("web MiB", lambda row: row.web_mib),
    ("kB/s each", lambda row: row.listener_kb_per_s),
    ("load's and listeners' own CPU %", lambda row: row.beside_cpu_percent),
)


class Listeners:
    """A process that holds `count` event streams open and reads them."""

    def __init__(self, port: int, count: int) -> None:
        self._count = count
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_listen, args=(port, count, theirs), daemon=True
        )
        self._process.start()
        if not self._pipe.poll(GREETING_S):
            raise AssertionError(f"{count} listeners weren't greeted in {GREETING_S} s")
        self._pipe.recv()

    def cpu_s(self) -> float:
        """Seconds of processor time so far."""
        assert self._process.pid is not None
        return cpu_s(self._process.pid)

    def end(self) -> tuple[int, int]:
        """Bytes that came after the greeting: in all, and to the one who got least."""
        self._pipe.send(None)
        received: list[int] = self._pipe.recv()
        self._process.join()
        return sum(received), min(received)


def _listen(port: int, count: int, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    ready = selectors.DefaultSelector()
    received = [0] * count
    for number in range(count):
        stream = socket.create_connection(("127.0.0.1", port))
        stream.sendall(REQUEST)
        head = b""
        while b"\r\n\r\n" not in head:
            head += stream.recv(4096)
        if b" 200 " not in head[:20] or b"gzip" not in head:
            raise AssertionError(f"listener {number} was answered {head!r}")
        ready.register(stream, selectors.EVENT_READ, number)
    ready.register(pipe, selectors.EVENT_READ, None)
    pipe.send("all are greeted")
    dropped = bytearray(DROP_BYTES)
    while True:
        for key, _ in ready.select():
            if key.data is None:
                pipe.send(received)
                return
            stream = key.fileobj  # type: ignore[assignment]
            received[key.data] += stream.recv_into(dropped, DROP_BYTES, socket.MSG_TRUNC)


def measure(
    lookout: Cluster, listeners: int, requests: Sequence[bytes], count: int, cpus: Cpus
) -> Row:
    """One arm: a fresh web process, a warm-up, the load."""
    assert lookout.web is not None
    assert lookout.core is not None
    lookout.web.term()
    lookout.web.finish(time.monotonic() + STOP_S)
    with cpus.of_cluster():
        lookout.start_web()
    host, port = lookout.url.removeprefix("http://").split(":")
    run_load(host, int(port), requests, CONCURRENCY, CONCURRENCY * 4)
    crowd = Listeners(int(port), listeners) if listeners else None
    web, core = lookout.web.pid, lookout.core.pid
    before = cpu_s(web), cpu_s(core), crowd.cpu_s() if crowd else 0.0
    result = run_load(host, int(port), requests, CONCURRENCY, count)
    web_s, core_s = cpu_s(web) - before[0], cpu_s(core) - before[1]
    beside_s = result.cpu_s + (crowd.cpu_s() - before[2] if crowd else 0.0)
    process = psutil.Process(web)
    rss = sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
    if set(result.statuses) != {200}:
        raise AssertionError(f"answers {result.statuses}")
    total, least = crowd.end() if crowd else (0, 1)
    if least == 0:
        raise AssertionError("a listener heard nothing")
    return Row(
        jobs_per_s=result.per_second,
        p99_ms=result.percentile_ms(99),
        web_us_per_job=1e6 * web_s / count,
        core_us_per_job=1e6 * core_s / count,
        web_cpu_percent=100 * web_s / result.elapsed_s,
        web_mib=rss / 2**20,
        listener_kb_per_s=total / max(1, listeners) / 1000 / result.elapsed_s,
        beside_cpu_percent=100 * beside_s / result.elapsed_s,
    )


class Cpus:
    """Which CPUs the cluster has, and which one everybody else."""

    def __init__(self) -> None:
        every = sorted(os.sched_getaffinity(0))
        if len(every) < 2:
            raise SystemExit(
                "this machine lends one CPU; two are needed to keep load and server apart"
            )
        self._cluster, self._beside = set(every[:-1]), {every[-1]}
        os.sched_setaffinity(0, self._beside)

    @contextlib.contextmanager
    def of_cluster(self) -> Iterator[None]:
        """What is started meanwhile gets the cluster's CPUs."""
        os.sched_setaffinity(0, self._cluster)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._beside)


def _compare(rows: dict[int, list[Row]], listeners: int) -> str:
    alone = [row.jobs_per_s for row in rows[0]]
    beside = [row.jobs_per_s for row in rows[listeners]]
    pairs = [b / a for a, b in zip(alone, beside, strict=True)]
    found = ratio(alone, beside, seed=0, name="listeners")
    return (
        f"jobs/s beside {listeners} ÷ alone: {found.ratio:.3f}, 95 % interval of {found.n} paired "
        f"rounds {found.low:.3f} to {found.high:.3f}; single rounds {min(pairs):.3f} to "
        f"{max(pairs):.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0, help="about, an arm of a round")
    parser.add_argument("--real", action="store_true", help="workers with a model")
    options = parser.parse_args(arguments)
    size = (1600, 1200) if options.real else (96, 72)
    bodies = [make_jpeg(seed, size, 94).ljust(100_000, b"\0") for seed in range(8)]
    headers = ["Content-Type: image/jpeg", "Prefer: wait=60"]
    requests = [post_request("/api/v1/jobs", "localhost", body, headers) for body in bodies]
    flags = [] if options.real else ["--engine", "null", "--enable-fault-hooks"]
    rows: dict[int, list[Row]] = {0: [], options.listeners: []}
    cpus = Cpus()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        with cpus.of_cluster():
            cluster = Cluster(Path(folder), workers=2, worker_args=flags)
            lookout = stack.enter_context(cluster)
        lookout.wait_ready()
        host, port = lookout.url.removeprefix("http://").split(":")
        began = time.perf_counter()
        run_load(host, int(port), requests, CONCURRENCY, 200)
        count = int(200 / (time.perf_counter() - began) * options.seconds)
        try:
            for number in range(options.rounds):
                for listeners in sorted(rows, reverse=bool(number % 2)):
                    rows[listeners].append(measure(lookout, listeners, requests, count, cpus))
        except Exception:
            print(lookout.logs()[-LOG_CHARACTERS:])
            raise
    print(f"{psutil.cpu_count()} CPUs, {count} jobs an arm, {len(bodies[0]) // 1000} kB each")
    named = {f"{listeners} event streams": measured for listeners, measured in rows.items()}
    print(table(COLUMNS, named))
    print(_compare(rows, options.listeners))


if __name__ == "__main__":
    main()
