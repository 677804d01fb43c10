"""Goodput of one link by loss, in a lab or a kernel with netem: what `streams_bench` starts.

One link, 100 Mbit/s and 5 ms each way, loss both ways, frames of 100 kB. Raw TCP with a
chosen congestion control over some connections, and Lookout itself: a real core, a real
worker with the null engine, jobs that always wait. Prints one JSON line for each cell.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.netem_root.star import (
    IMAGE_BYTES,
    Client,
    Conditions,
    Feeder,
    LabLinks,
    Links,
    Star,
    StarCluster,
    wait_for,
)

DELAY_MS: Final = 5.0
RATE_MBIT: Final = 100.0
JOBS_WAITING: Final = 64


@dataclass(frozen=True)
class Raw:
    """One way to send without Lookout."""

    name: str
    congestion: str
    streams: int


RAW: Final = (
    Raw("CUBIC", "cubic", 1),
    Raw("BBR", "bbr", 1),
    Raw("BBR × 4", "bbr", 4),
    Raw("BBR × 16", "bbr", 16),
)


def measure_raw(links: Star, raw: Raw, rounds: int, round_s: float) -> list[float]:
    """Mbit/s of each round; none where the connections don't come to stand."""
    with _end_of_raw(links, "master", "pour", raw.congestion) as pouring:
        assert _line(pouring) == "listening"
        where, shape = links.master_address(1), (str(raw.streams), str(rounds), str(round_s))
        with _end_of_raw(links, "worker-1", "receive", where, *shape) as receiving:
            if _line(receiving) != "open":
                return []
            found: list[float] = json.loads(_line(receiving))
            return found


@contextmanager
def _end_of_raw(links: Star, host: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "tests.bench.streams_raw", *arguments]
    process = subprocess.Popen(links.command(host, argv), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- Lookout -----------------------------------------------------------------------------------


class Lookout:
    """A core and a worker on the link, and jobs that wait."""

    def __init__(self, links: Star, folder: Path, streams: str) -> None:
        self._cluster = StarCluster(folder, links, ["--streams", streams])
        self._cluster.start()
        self.client = Client(self._cluster)
        self._cluster.start_workers()
        wait_for("the worker", lambda: self.client.ready() == 1, 60.0)

    def measure(self, rounds: int, round_s: float, settle_s: float) -> tuple[list[float], int]:
        """Mbit/s of images that came back as results, by round; streams at the end."""
        found = []
        with Feeder(self.client, JOBS_WAITING):
            time.sleep(settle_s)
        # The one processor is not to be busy with taking jobs in while they are measured.
        self.client.fill(int(RATE_MBIT * 1e6 / 8 / IMAGE_BYTES * round_s * rounds))
        for _ in range(rounds):
            before, begun = self.client.ended(), time.monotonic()
            time.sleep(round_s)
            ended = self.client.ended() - before
            found.append(ended * IMAGE_BYTES * 8 / (time.monotonic() - begun) / 1e6)
        return found, self.client.workers()["worker-1"].streams

    def close(self) -> None:
        """End it."""
        self.client.close()
        self._cluster.stop()


def say(loss: float, name: str, mbit_s: Sequence[float], **more: object) -> None:
    """One cell of the table."""
    print("CELL", json.dumps({"loss": loss, "name": name, "mbit_s": list(mbit_s), **more}))
    sys.stdout.flush()


def run(options: argparse.Namespace, folder: Path) -> None:
    """Every loss with every way."""
    links: Star = LabLinks(1) if options.place == "lab" else Links(1)
    links.set_all(Conditions(0.0, DELAY_MS, RATE_MBIT))
    if "raw" in options.ways:
        for loss in options.losses:
            links.set_all(Conditions(loss, DELAY_MS, RATE_MBIT))
            for raw in RAW:
                say(loss, raw.name, measure_raw(links, raw, options.rounds, options.round))
    links.set_all(Conditions(0.0, DELAY_MS, RATE_MBIT))
    for streams in (way for way in options.ways if way != "raw"):
        (folder / streams).mkdir()
        lookout = Lookout(links, folder / streams, streams)
        for loss in options.losses:
            links.set_all(Conditions(loss, DELAY_MS, RATE_MBIT))
            found, opened = lookout.measure(options.rounds, options.round, options.settle)
            say(loss, f"Lookout {streams}", found, streams=opened)
        links.set_all(Conditions(0.0, DELAY_MS, RATE_MBIT))
        lookout.close()
    links.close()


def parser() -> argparse.ArgumentParser:
    """The flags, which `streams_bench` has as well."""
    made = argparse.ArgumentParser(prog="python -m tests.bench.streams_bench", description=__doc__)
    made.add_argument(
        "--in",
        dest="place",
        choices=("lab", "kernel"),
        default="lab",
        help="a lab of this machine, or a kernel with sch_netem and one processor",
    )
    made.add_argument("--losses", type=float, nargs="+", default=[0, 5, 10, 20, 30, 40])
    made.add_argument("--ways", nargs="+", default=["raw", "auto"], help="raw, auto, or streams")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--round", type=float, default=2.0, help="seconds of one round")
    made.add_argument("--settle", type=float, default=12.0, help="seconds before Lookout's rounds")
    return made


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        run(parser().parse_args(), Path(name))
