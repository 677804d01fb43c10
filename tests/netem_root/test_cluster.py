"""A real cluster in a lab: over lossy links, and with a worker cut off and healed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from netem.grammar import parse
from netem.lab import Lab, star
from netem.lab.conductor import perform
from netem.spec import Duplex
from netem.timeline import Step, Timeline, Verb
from tests.fakes.process import Process
from tests.fakes.weights import random_weights
from tests.netem_root.labs import lab_name, need_netns
from tests.shared import REPOSITORY, make_jpeg, wait_until
from worker.agent import AgentConfig

START_TIMEOUT_S = 90.0
LOSSY = Duplex.both(parse("loss=5% delay=10ms jitter=3ms"))
WORKERS = ("worker-1", "worker-2")
CUT_JOBS = 150
MORE_JOBS = 150
BACKOFF_CAP_S: float = next(f.default for f in fields(AgentConfig) if f.name == "backoff_cap_s")
JOBS_PER_S = 20
"""What one lane of a worker may do."""


@dataclass
class LabCluster:
    """Master and workers as processes in the hosts of a lab; the API through a forwarded port."""

    lab: Lab
    root: Path
    http: httpx.Client
    processes: dict[str, Process]

    def workers(self) -> dict[str, dict[str, Any]]:
        """What the master says of each worker."""
        return {w["name"]: w for w in self.http.get("/workers").json()["workers"]}

    def wait_ready(self) -> None:
        """Wait until both workers take work."""

        def ready() -> bool:
            for name, process in self.processes.items():
                assert process.alive, f"{name} ended:\n{process.log()}"
            return self.ready() == set(WORKERS)

        wait_until(ready, START_TIMEOUT_S, "both workers to be ready")

    def ready(self) -> set[str]:
        """Workers that take work and are alive."""
        here = self.workers()
        return {n for n in here if here[n]["ready"] and here[n]["liveness"] == "alive"}

    def completed(self, worker: str) -> int:
        """Jobs that the master has from a worker."""
        count: int = self.workers().get(worker, {}).get("completed", 0)
        return count

    def classify(self, folder: Path, host: str = "client-1") -> subprocess.Popen[bytes]:
        """`classify` in a host, over its link, by the master's name."""
        argv = [sys.executable, "-m", "client", str(folder), "--server", "http://master"]
        # Into a file: a pipe that nobody reads yet stops the client at 64 kB.
        with said_in(folder).open("w") as said:
            return subprocess.Popen(
                self.lab.command(host, [*argv, "--json", "--quiet"], cwd=REPOSITORY), stdout=said
            )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    """A master, two workers and a client; every link but the master's loses and delays."""
    need_netns()
    root = tmp_path_factory.mktemp("lab")
    topology = star(lab_name("cluster"), workers=2, clients=1, link=LOSSY)
    with Lab.up(topology) as lab, lab.forward("master", 80) as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as http:
            one = LabCluster(lab, root, http, {})
            try:
                _start(one)
                yield one
            finally:
                for process in one.processes.values():
                    process.finish(time.monotonic() + 5.0)
                    print(f"--- {process.name}\n{process.log()}")


def _start(one: LabCluster) -> None:
    weights = random_weights("squeezenet1_1", one.root / "weights.pth")
    data, token = one.root / "data", one.root / "data" / "token"
    _spawn(
        one,
        "master",
        *("master", "up", "--data", str(data), "--model", "squeezenet1_1"),
        *("--weights", str(weights), "--http", "0.0.0.0:80"),
    ).wait_line(r"worker join (\S+) --token", timeout_s=START_TIMEOUT_S)
    for name in WORKERS:
        joins = ("worker", "join", "master", "--token-file", str(token), "--name", name)
        slow = ("--engine", "torch", "--batch", "1", "--enable-fault-hooks")
        _spawn(one, name, *joins, *slow, env={"LOOKOUT_FAULTS": f"delay-ms={1000 // JOBS_PER_S}"})
    one.wait_ready()


def _spawn(one: LabCluster, host: str, *argv: str, env: dict[str, str] | None = None) -> Process:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOOKOUT_")}
    own = {"HOME": str(one.root / host), "XDG_CACHE_HOME": str(one.root / host / "cache")}
    process = Process(
        host,
        one.lab.command(host, [sys.executable, "-m", *argv], cwd=REPOSITORY),
        log_path=one.root / f"{host}.log",
        env={**kept, **own, **(env or {})},
        cwd=REPOSITORY,
    )
    one.processes[host] = process
    return process


def images(folder: Path, count: int) -> Path:
    """A folder of that many small photographs."""
    folder.mkdir()
    pictures = [make_jpeg(number, (160, 160)) for number in range(10)]
    for number in range(count):
        (folder / f"{number:04d}.jpg").write_bytes(pictures[number % len(pictures)])
    return folder


def said_in(folder: Path) -> Path:
    """Where `classify` writes what it says of the images of a folder."""
    return folder.with_name(f"{folder.name}.jsonl")


def outcomes(
    process: subprocess.Popen[bytes], folder: Path, timeout_s: float = 60.0
) -> list[dict[str, Any]]:
    """What `classify` said of each image of a folder, once it ended."""
    process.wait(timeout=timeout_s)
    return [json.loads(line) for line in said_in(folder).read_text().splitlines()]


def test_a_cluster_over_lossy_links_loses_nothing(cluster: LabCluster, tmp_path: Path) -> None:
    folder = images(tmp_path / "images", 40)
    done = outcomes(cluster.classify(folder), folder)
    assert len({outcome["image"] for outcome in done}) == 40
    assert {outcome["state"] for outcome in done} == {"succeeded"}
    assert {outcome["worker"] for outcome in done} == set(WORKERS)
    lost = [cluster.lab.status()[name].reading.egress.counters for name in WORKERS]
    assert sum(counters.dropped_packets for counters in lost) > 0, "nothing was lost: no test"


@pytest.mark.parametrize(
    "cut_s", [1.0, 5.0, pytest.param(60.0, marks=[pytest.mark.slow, pytest.mark.timeout(420)])]
)
def test_a_worker_that_was_cut_off_is_back_within_one_backoff(
    cluster: LabCluster, tmp_path: Path, cut_s: float
) -> None:
    cluster.wait_ready()
    before = cluster.completed("worker-1")
    first, second = images(tmp_path / "images", CUT_JOBS), images(tmp_path / "more", MORE_JOBS)
    client = cluster.classify(first, host="master")
    wait_until(lambda: cluster.completed("worker-1") > before, 30.0, "work to have begun")
    timeline = Timeline((Step(0, Verb.CUT, "worker-1"), Step(cut_s, Verb.HEAL, "worker-1")))
    cut, heal = perform(timeline, cluster.lab)
    assert heal.done_s - cut.done_s >= cut_s - 0.1
    wait_until(lambda: "worker-1" in cluster.ready(), 60.0, "worker-1 to be back")
    back_s = time.monotonic() - heal.done_s
    print(f"cut for {cut_s:g} s: worker-1 takes work again {back_s:.2f} s after the heal")
    # Only now: the other worker would have done all of it before a longer backoff is over.
    more = outcomes(cluster.classify(second, host="master"), second, timeout_s=120.0)
    assert {outcome["worker"] for outcome in more} == set(WORKERS)
    done = outcomes(client, first, timeout_s=120.0)
    assert len({outcome["image"] for outcome in done}) == len(done) == CUT_JOBS
    assert len({outcome["image"] for outcome in more}) == len(more) == MORE_JOBS
    assert {outcome["state"] for outcome in (*done, *more)} == {"succeeded"}
    assert back_s < BACKOFF_CAP_S
