"""Many workers in one process that infer nothing: `python -m tests.bench.swarm HOST:PORT`.

Each is a connection of its own with the whole protocol (handshake, `Ready`,
`Started` before and `Result` after each job, heartbeats), so the master can't
tell it from a worker. A job takes `--service-ms`; with 0 it is answered at once.
Prints `READY` when all have joined and, on SIGTERM, one line of JSON: jobs done,
CPU seconds of its own, and milliseconds between the end of a job and the arrival
of the next one for the same worker (`idle_ms`: what dispatch costs a worker).
SIGUSR1 forgets what was counted so far. With `--feed CORE` it also submits, as a
web process, a job of `--image-bytes` for each one that ends (`--feed-first` of them
at the start), so that the queue stays as long as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import signal
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from wire import aio
from wire.connection import Connection
from wire.messages import (
    VERSION,
    Accepted,
    Assign,
    Drain,
    Guess,
    Heartbeat,
    Hello,
    LeaseRef,
    Message,
    Model,
    Ready,
    Refused,
    Result,
    Started,
    Submit,
    Upload,
)

TOP5 = [
    Guess(label=f"class {number}", class_id=number, confidence=0.2 - number / 100)
    for number in range(5)
]
TIMINGS = {"queue": 0.1, "decode": 0.2, "infer": 0.3}
JOINS_AT_ONCE = 50
SAMPLES_MAX = 1_000_000


@dataclass
class Figures:
    """What the swarm saw since the start, or since SIGUSR1."""

    done: int = 0
    accepted: int = 0
    idle_ms: array[float] = field(default_factory=lambda: array("d"))
    refused: int = 0
    on_accepted: Callable[[], None] = lambda: None

    def clear(self) -> None:
        """Forget a warm-up."""
        self.done = self.accepted = 0
        del self.idle_ms[:]


class NullWorker:
    """One connection."""

    def __init__(self, connection: Connection, slots: int, service_s: float, out: Figures) -> None:
        self.ready = False
        self._connection = connection
        self._slots = slots
        self._service_s = service_s
        self._out = out
        self._loop = asyncio.get_running_loop()
        self._held: deque[LeaseRef] = deque()
        self._executing = 0
        self._progress = 0
        self._seq = 0
        self._model = ""
        self._fresh: list[LeaseRef] = []
        self._idle_since: deque[float] = deque()
        connection.on_message = self._take

    def _take(self, _: Connection, message: Message) -> None:
        if isinstance(message, Assign):
            if self._idle_since and len(self._out.idle_ms) < SAMPLES_MAX:
                idle_s = time.monotonic() - self._idle_since.popleft()
                self._out.idle_ms.append(1000 * idle_s)
            if not self._fresh:
                self._loop.call_soon(self._begin)
            self._fresh.append(LeaseRef(job=message.job, token=message.token))
        elif isinstance(message, Accepted):
            self._out.accepted += 1
            self._out.on_accepted()
        elif isinstance(message, Model):
            self._model, self.ready = message.card.id, True
            self._connection.send(
                Ready(model=self._model, engine="null", slots=self._slots, warmup_ms=0.0)
            )
        elif isinstance(message, Drain):
            self._connection.close("drained")

    def _begin(self) -> None:
        """All that came in one read."""
        leases, self._fresh = self._fresh, []
        self._connection.send(Started(leases=leases))
        self._executing += len(leases)
        if self._service_s:
            self._loop.call_later(self._service_s, self._end, leases)
        else:
            self._end(leases)

    def _end(self, leases: list[LeaseRef]) -> None:
        now = time.monotonic()
        for lease in leases:
            self._connection.send(
                Result(
                    job=lease.job, token=lease.token, model=self._model, top5=TOP5,
                    timings_ms=TIMINGS,
                )
            )  # fmt: skip
            self._idle_since.append(now)
        self._executing -= len(leases)
        self._progress += len(leases)
        self._out.done += len(leases)

    def beat(self) -> None:
        """One heartbeat."""
        self._seq += 1
        self._connection.send(
            Heartbeat(
                seq=self._seq,
                progress=self._progress,
                held=self._executing,
                executing=self._executing,
            )
        )


async def swarm(options: argparse.Namespace) -> None:
    """Join, work until SIGTERM, report."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    out = Figures()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    token = options.token_file.read_text().strip()
    service_s = options.service_ms / 1000
    if options.feed:
        await _begin_feeding(options, token, out)
    workers: list[NullWorker] = []
    intervals: list[float] = []
    for first in range(0, options.workers, JOINS_AT_ONCE):
        numbers = range(first, min(options.workers, first + JOINS_AT_ONCE))
        joined = await asyncio.gather(*(_join(options.master, token, n, options) for n in numbers))
        intervals += [connection.welcome.heartbeat_interval_s for connection in joined]
        workers += [NullWorker(one, options.slots, service_s, out) for one in joined]
    beating = [
        asyncio.create_task(_beat(worker, intervals[number], number / len(workers)))
        for number, worker in enumerate(workers)
    ]
    cpu = _Cpu()

    def begin() -> None:
        out.clear()
        cpu.mark()

    loop.add_signal_handler(signal.SIGUSR1, begin)
    print("READY", flush=True)
    await stopping.wait()
    for task in beating:
        task.cancel()
    print(json.dumps(_report(out, cpu)), flush=True)


class _Cpu:
    def __init__(self) -> None:
        self.mark()

    def mark(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._at, self._cpu = time.monotonic(), usage.ru_utime + usage.ru_stime

    def since(self) -> tuple[float, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return time.monotonic() - self._at, usage.ru_utime + usage.ru_stime - self._cpu


def _report(out: Figures, cpu: _Cpu) -> dict[str, float]:
    ordered = sorted(out.idle_ms)
    elapsed_s, cpu_s = cpu.since()

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else -1.0

    return {
        "refused": out.refused,
        "done": out.done,
        "accepted": out.accepted,
        "elapsed_s": elapsed_s,
        "cpu_s": cpu_s,
        "idle_p50_ms": at(0.5),
        "idle_p99_ms": at(0.99),
        "idle_max_ms": at(1.0),
    }


async def _begin_feeding(options: argparse.Namespace, token: str, out: Figures) -> None:
    """A job for each that ends, over a connection like a web process's."""
    image = Upload(name="a.jpg", media_type="image/jpeg", data=bytes(options.image_bytes))
    hello = Hello(versions=[VERSION], role="web", name="feeder", incarnation="1")
    numbers = itertools.count(1)

    def answered(_: Connection, message: Message) -> None:
        out.refused += isinstance(message, Refused)

    web = await aio.connect(options.feed, token, hello, on_message=answered)

    def one() -> None:
        web.send(Submit(request=next(numbers), images=[image]))

    for _ in range(options.feed_first):
        one()
    out.on_accepted = one


async def _join(master: str, token: str, number: int, options: argparse.Namespace) -> Connection:
    hello = Hello(
        versions=[VERSION], role="worker", name=f"null{number}", incarnation=f"{number}",
        slots=options.slots, software="swarm",
    )  # fmt: skip
    return await aio.connect(master, token, hello)


async def _beat(worker: NullWorker, interval_s: float, phase: float) -> None:
    await asyncio.sleep(interval_s * phase)
    while True:
        worker.beat()
        await asyncio.sleep(interval_s)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("master", metavar="HOST:PORT")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--service-ms", type=float, default=0.0)
    parser.add_argument("--feed", metavar="CORE", help="where web processes connect")
    parser.add_argument("--feed-first", type=int, default=0)
    parser.add_argument("--image-bytes", type=int, default=1000)
    uvloop.run(swarm(parser.parse_args()))
    sys.exit(0)


if __name__ == "__main__":
    main()
