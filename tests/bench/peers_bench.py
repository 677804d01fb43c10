"""Lookout beside its peers on this machine: images/s over HTTP, interleaved, as ratios.

    python -m tests.bench.peers_bench [--rounds N] [--seconds S] [--only NAME …] [--out FILE]
                                      [--parts rates int8 latency joins]

Four parts: `rates` is the table of all rows; `int8` of Lookout and mosec with one int8 model
(the bundled one, where there are images to quantise it with); `latency` of one image on an
idle cluster and at half load, beside decode + infer alone; `joins` from `worker join` to the
first result, with nothing cached and with everything.

Every row classifies the same JPEGs of about 108 kB with the same GoogLeNet (224 px, seeded
random weights), two processes × one thread, a closed loop of 32 requests, the load
generator on the same cores. `bare` is the limit without a network, in Lookout's
own best arrangement; the peers decode and resize as their users would, with the graph that
OpenVINO makes of the model, and one row has the graph that Lookout makes of that. Servers
are started for each measurement and ended after it, so that none idles beside another;
a keeper ends them even if this command is killed.

Peers are installed into an environment of their own (`build/peers`), which sees the
packages of this one, so that engine and torch are the same files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.bench.http_load import LoadResult, post_request
from tests.bench.http_paced import run_load_for, run_paced
from tests.bench.keeper import is_kept, run_kept
from tests.bench.peers.naive import GRAPH, PRECISION, WEIGHTS
from tests.bench.stage import Int8Stage, Stage
from tests.fakes.cluster import Cluster
from tests.shared import CIFAR10_TRAIN, REPOSITORY, shared_file
from worker import machine

CONCURRENCY = 32
ENVIRONMENT = REPOSITORY / "build" / "peers"
STAGE = REPOSITORY / "build" / "peers-stage"
INT8_STAGE = REPOSITORY / "build" / "peers-stage-int8"
PACKAGES = ("flask==3.1.3", "litserve==0.2.19", "mosec==0.9.8", "ray[serve]==2.60.0")
START_TIMEOUT_S = 90.0
SERVERS = {
    "flask + torch fp32": ("flask_app", "/", {}),
    "litserve": ("litserve_app", "/predict", {}),
    "mosec, batch 1": ("mosec_app", "/inference", {"PEERS_BATCH": "1"}),
    "mosec, batch 8": ("mosec_app", "/inference", {"PEERS_BATCH": "8"}),
    "mosec, batch 8, Lookout's graph": ("mosec_app", "/inference", {"PEERS_BATCH": "8"}),
    "ray serve": ("ray_app", "/", {}),
}
WITH_OUR_GRAPH = ("mosec, batch 8, Lookout's graph",)
INT8_SERVERS = ("mosec, batch 1", "mosec, batch 8", *WITH_OUR_GRAPH)
PARTS = ("rates", "int8", "latency", "joins")
# In int8 the hint is for the layers that stay unquantised, as in Lookout's engine.
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16" if machine.has_bf16() else "f32"}
LOOKOUT, BARE = "lookout", "bare limit"


def bare(stage: Stage, what: str = "rate", processes: int = 2) -> float:
    """Images/s of so many processes at once, or the milliseconds of one image alone."""
    kind = type(stage).__name__
    command = [sys.executable, "-m", "tests.bench.peers.bare", kind, str(stage.folder)]
    running = [
        subprocess.Popen(
            [*command, str(stage.seconds), what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout
        ready, stage.precision = process.stdout.readline().split()
        assert ready == "ready"
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    values = [float(process.communicate()[0]) for process in running]
    return sum(values) if what == "rate" else statistics.median(values)


@contextlib.contextmanager
def lookout(stage: Stage) -> Iterator[tuple[str, int, list[bytes]]]:
    """Core, web and two workers with one thread each; requests that wait for their result."""
    flags = ("--threads", "1", "--cache", str(stage.cache))
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(
            Path(folder),
            workers=2,
            model="googlenet",
            weights=stage.weights,
            engine=stage.engine_flags,
            worker_args=flags,
        ) as cluster,
    ):
        cluster.wait_ready(timeout_s=START_TIMEOUT_S)
        host, port = cluster.url.removeprefix("http://").split(":")
        headers = ["Content-Type: image/jpeg", "Prefer: wait=60"]
        yield (
            host,
            int(port),
            [
                post_request("/api/v1/jobs", f"{host}:{port}", body, headers)
                for body in stage.bodies
            ],
        )


@contextlib.contextmanager
def peer(stage: Stage, name: str) -> Iterator[tuple[str, int, list[bytes]]]:
    """One of `SERVERS`, in the peers' environment, in a session of its own."""
    module, path, extra = SERVERS[name]
    port = free_port()
    recipe = stage.card.preprocessing
    environment = {
        **os.environ,
        GRAPH: str(stage.graph if name in WITH_OUR_GRAPH else stage.plain_graph),
        WEIGHTS: str(stage.weights),
        "PEERS_SIZES": f"{recipe.resize_px},{recipe.crop_px}",
        PRECISION: HINTS[stage.precision],
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        **extra,
    }
    arguments = [str(port)]
    if module == "mosec_app":
        arguments = ["--port", str(port), "--timeout", "60000"]
    log = (stage.folder / f"{module}.log").open("wb")
    process = subprocess.Popen(
        [str(ENVIRONMENT / "bin" / "python"), "-m", f"tests.bench.peers.{module}", *arguments],
        env=environment,
        cwd=stage.folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    requests = [request_to(name, path, body) for body in stage.bodies]
    try:
        wait_for_answer(process, port, requests[0])
        yield "127.0.0.1", port, requests
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()
        if sys.exc_info()[0] is not None:
            print((stage.folder / f"{module}.log").read_text()[-3000:], flush=True)


def request_to(name: str, path: str, body: bytes) -> bytes:
    """The image as this server takes it: as it is, or as the file of a form."""
    if name != "litserve":
        return post_request(path, "127.0.0.1", body)
    mark = b"f6a0c1d9e5b84c6c"
    disposition = b'Content-Disposition: form-data; name="content"; filename="i.jpg"'
    head = b"\r\n".join([b"--" + mark, disposition, b"Content-Type: image/jpeg", b"", b""])
    form = [f"Content-Type: multipart/form-data; boundary={mark.decode()}"]
    return post_request(path, "127.0.0.1", head + body + b"\r\n--" + mark + b"--\r\n", form)


def first_result_s(stage: Stage, cache: Path) -> float:
    """Seconds from `worker join` to the first result, with a job already waiting."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(
            Path(folder),
            workers=0,
            model="googlenet",
            weights=stage.weights,
            engine=stage.engine_flags,
        ) as cluster,
        cluster.client() as http,
    ):
        job = http.post("/jobs", content=stage.bodies[0], headers={"Content-Type": "image/jpeg"})
        job.raise_for_status()
        place = f"/jobs/{job.json()['jobs'][0]['id']}"
        began_s = time.perf_counter()
        cluster.start_worker("w1", args=("--threads", "1", "--cache", str(cache)))
        answer = http.get(place, params={"wait": 60}).json()
        elapsed_s = time.perf_counter() - began_s
        if answer["state"] != "succeeded":
            raise RuntimeError(f"the first job is {answer['state']}")
        return elapsed_s


def first_results(stage: Stage, rounds: int) -> list[str]:
    """Lines about starting with nothing in the cache, and again with everything in it."""
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(first_result_s(stage, Path(folder)))
            warm.append(first_result_s(stage, Path(folder)))
    return [
        f"worker join to first result, nothing cached: {spread(cold, '.1f')} s",
        f"worker join to first result, warm cache: {spread(warm, '.1f')} s",
    ]


def free_port() -> int:
    """A port that was free a moment ago; these servers can't bind port 0 and say which."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_answer(process: subprocess.Popen[bytes], port: int, request: bytes) -> None:
    """Until it answers 200."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 10.0) as connection,
        ):
            connection.sendall(request)
            if b" 200 " in connection.recv(64):
                return
        time.sleep(0.2)
    raise RuntimeError(f"{process.args} doesn't answer")


def images_per_s(stage: Stage, name: str) -> float:
    """One measurement of one row."""
    if name == BARE:
        return bare(stage)
    serving = lookout(stage) if name == LOOKOUT else peer(stage, name)
    with serving as (host, port, requests):
        result = run_load_for(host, port, requests, CONCURRENCY, stage.seconds, warm_s=1.0)
        answered(result)
        return result.per_second


def answered(result: LoadResult) -> None:
    """Every answer was a result."""
    if set(result.statuses) != {200}:
        raise RuntimeError(f"answers {result.statuses}")


def latencies(stage: Stage, rate_per_s: float) -> list[str]:
    """Lines about one image on an idle cluster, and about half load."""
    alone_ms = bare(stage, "alone", processes=1)
    with lookout(stage) as (host, port, requests):
        idle = run_load_for(host, port, requests, 1, stage.seconds, warm_s=1.0)
        half = run_paced(host, port, requests, rate_per_s / 2, stage.seconds)
        answered(idle)
        answered(half)
    return [
        f"decode + infer alone, one thread: median {alone_ms:.1f} ms",
        f"idle cluster, one image at a time: p50 {idle.percentile_ms(50):.1f} ms"
        f" ({idle.percentile_ms(50) / alone_ms:.2f} × alone), p99 {idle.percentile_ms(99):.1f} ms",
        f"half load ({rate_per_s / 2:.0f}/s): p50 {half.percentile_ms(50):.1f} ms,"
        f" p99 {half.percentile_ms(99):.1f} ms"
        f" ({half.percentile_ms(99) / half.percentile_ms(50):.2f} × p50)",
    ]


def install_peers() -> None:
    """Make the peers' environment once."""
    stamp = ENVIRONMENT / "installed"
    wanted = "\n".join(PACKAGES)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    site = next(ENVIRONMENT.glob("lib/python*/site-packages"))
    ours = [path for path in sys.path if path.endswith("-packages")]
    (site / "lookout-bench.pth").write_text("\n".join(ours) + "\n")
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES]
    subprocess.run(pip, check=True)
    stamp.write_text(wanted)


def table(rows: dict[str, list[float]]) -> str:
    """Medians with their range, and each row as a share of Lookout's in the same round."""
    lines = ["| row | images/s | lookout ÷ row |", "|---|---|---|"]
    for name, values in sorted(rows.items(), key=lambda row: -statistics.median(row[1])):
        ratios = [
            ours / theirs for ours, theirs in zip(rows.get(LOOKOUT, []), values, strict=False)
        ]
        cells = [spread(values, ".0f"), spread(ratios, ".2f") if ratios else "–"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], form: str) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", nargs="*", default=[], help="words of the rows wanted")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out" / "peers.json")
    options = parser.parse_args(arguments)
    if not is_kept():
        given = sys.argv[1:] if arguments is None else arguments
        raise SystemExit(run_kept([sys.executable, "-m", "tests.bench.peers_bench", *given]))
    names = [BARE, LOOKOUT, *SERVERS]
    names = [n for n in names if not options.only or any(word in n for word in options.only)]
    if set(names) & set(SERVERS) and {"rates", "int8"} & set(options.parts):
        install_peers()
    stage = Stage(STAGE, options.seconds)
    rows: dict[str, dict[str, list[float]]] = {"rates": {}, "int8": {}}
    lines: list[str] = []
    if set(options.parts) - {"int8"}:
        begin(stage)
    if "rates" in options.parts:
        measure_rounds(names, options.rounds, rows["rates"], lambda name: images_per_s(stage, name))
        print(table(rows["rates"]), flush=True)
    if "int8" in options.parts:
        some = [name for name in names if name not in SERVERS or name in INT8_SERVERS]
        lines += int8_rates(options.seconds, some, options.rounds, rows["int8"])
    if "latency" in options.parts:
        found = rows["rates"].get(LOOKOUT) or [images_per_s(stage, LOOKOUT)]
        lines += latencies(stage, statistics.median(found))
    if "joins" in options.parts:
        lines += first_results(stage, options.rounds)
    print(*lines, sep="\n")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(msgspec.json.encode({"images_per_s": rows, "lines": lines}))


def begin(stage: Stage) -> None:
    """Make what the rows share, and say what it is."""
    stage.prepare()
    bare(stage, "alone", processes=1)  # measures and compiles, where nothing is cached yet
    assert stage.plain_graph.is_file()
    print(about(stage), flush=True)


def int8_rates(
    seconds: float, names: list[str], rounds: int, rows: dict[str, list[float]]
) -> list[str]:
    """Measure and print the rows of one int8 model; the reason where there can be none."""
    if shared_file(CIFAR10_TRAIN) is None:
        return [f"int8: skipped, there is no {CIFAR10_TRAIN} to quantise the bundled model with"]
    stage = Int8Stage(INT8_STAGE, seconds)
    begin(stage)
    measure_rounds(names, rounds, rows, lambda name: images_per_s(stage, name))
    print(table(rows), flush=True)
    return []


def measure_rounds(
    names: list[str], rounds: int, rows: dict[str, list[float]], measure: Callable[[str], float]
) -> None:
    """Each row once a round, in an order that turns, so that drift hits all alike."""
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            rows.setdefault(name, []).append(measure(name))
            print(json.dumps({"round": number, name: round(rows[name][-1], 1)}), flush=True)


def about(stage: Stage) -> str:
    """Processor, versions, images."""
    versions = {n: machine.version_of(n) for n in ("openvino", "torch", "pillow")}
    sizes = [len(body) for body in stage.bodies]
    return (
        f"{machine.cpu_model()}, {machine.cores()} cores; {stage.precision}; {versions};"
        f" {', '.join(PACKAGES)};"
        f" {len(sizes)} JPEGs, mean {statistics.mean(sizes) / 1000:.0f} kB;"
        f" loop of {CONCURRENCY}"
    )


if __name__ == "__main__":
    main()
