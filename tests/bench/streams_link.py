"""Goodput of one link by loss, inside a kernel with netem: what `streams_bench` boots.

One link, 100 Mbit/s and 5 ms each way, loss both ways, frames of 100 kB. Raw TCP with a
chosen congestion control over some connections, and Lookout itself: a real core, a real
worker with the null engine, jobs that always wait. Prints one JSON line for each cell.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Final

from tests.netem_root.star import (
    IMAGE_BYTES,
    Client,
    Conditions,
    Feeder,
    Links,
    StarCluster,
    wait_for,
)

DELAY_MS: Final = 5.0
RATE_MBIT: Final = 100.0
RAW_PORT: Final = 7000
WARM_UP_S: Final = 2.0
OPEN_TIMEOUT_S: Final = 40.0
JOBS_WAITING: Final = 64
CLONE_NEWNET: Final = 0x40000000
_SERVER = ("10.7.1.1", RAW_PORT)


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


def enter(host: str) -> None:
    """Move this process into a namespace."""
    fd = os.open(f"/run/netns/{host}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"can't enter {host}")
    os.close(fd)


# --- raw TCP -----------------------------------------------------------------------------------


def receive(streams: int, rounds: int, round_s: float, results: Pipe) -> None:
    """In the worker's place: open the connections, say when all stand, count bytes by round."""
    enter("worker-1")
    selector = selectors.DefaultSelector()
    for _ in range(streams):
        sock = _connected()
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
    results.send("open")
    buffer = bytearray(2**18)

    def count(seconds: float) -> int:
        end, got = time.monotonic() + seconds, 0
        while (left_s := end - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    got += key.fileobj.recv_into(buffer)
                except OSError:
                    selector.unregister(key.fileobj)
        return got

    count(WARM_UP_S)
    results.send([count(round_s) * 8 / round_s / 1e6 for _ in range(rounds)])


def _connected() -> socket.socket:
    """A connection of which both ends know: the server has sent its first byte."""
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            sock = socket.create_connection(_SERVER, timeout=5.0)
            if sock.recv(1):
                return sock
        except OSError:
            continue
    raise TimeoutError(f"no connection within {OPEN_TIMEOUT_S:g} s")


def pour(raw: Raw, listening: Pipe) -> None:
    """In the master's place: send frames over every connection as fast as TCP takes them."""
    enter("master")
    listener = socket.create_server(("0.0.0.0", RAW_PORT), backlog=64)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, raw.congestion.encode())
    listener.setblocking(False)
    listening.send("listening")
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    piece = memoryview(bytes(IMAGE_BYTES))
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            try:
                if key.fileobj is listener:
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(sock, selectors.EVENT_WRITE)
                else:
                    key.fileobj.send(piece)
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(key.fileobj)


def measure_raw(raw: Raw, rounds: int, round_s: float) -> list[float]:
    """Mbit/s of each round."""
    ours, theirs = multiprocessing.Pipe()
    sender = multiprocessing.Process(target=pour, args=(raw, theirs), daemon=True)
    sender.start()
    ours.recv()
    receiver = multiprocessing.Process(
        target=receive, args=(raw.streams, rounds, round_s, theirs), daemon=True
    )
    receiver.start()
    try:
        if not ours.poll(OPEN_TIMEOUT_S * 2):
            return []
        ours.recv()
        return list(ours.recv())
    finally:
        for process in (receiver, sender):
            process.kill()
            process.join()


# --- Lookout -----------------------------------------------------------------------------------


class Lookout:
    """A core and a worker on the link, and jobs that wait."""

    def __init__(self, links: Links, folder: Path, streams: str) -> None:
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
    links = Links(1)
    links.set_all(Conditions(0.0, DELAY_MS, RATE_MBIT))
    if "raw" in options.ways:
        for loss in options.losses:
            links.set_all(Conditions(loss, DELAY_MS, RATE_MBIT))
            for raw in RAW:
                say(loss, raw.name, measure_raw(raw, options.rounds, options.round))
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
    made.add_argument("--losses", type=float, nargs="+", default=[0, 5, 10, 20, 30, 40])
    made.add_argument("--ways", nargs="+", default=["raw", "auto"], help="raw, auto, or streams")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--round", type=float, default=2.0, help="seconds of one round")
    made.add_argument("--settle", type=float, default=12.0, help="seconds before Lookout's rounds")
    return made


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        run(parser().parse_args(), Path(name))
