"""The load of one replicate, as a process of its own: `python -m experiments.load ORDER`.

It runs where the client's host is (in a lab: behind the client's link), asks
through the library `client`, and writes a row for each image as it ends. In an
open loop an image begins when it was to arrive, however late it was sent: waiting
for a busy client is latency, too (Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import IO, Final

import msgspec

from client import ClientError, Clock, Data, Limits, Outcome
from client.journey import Call, Journey
from client.transport import Transport
from experiments import images
from experiments.ledger import image_id
from experiments.rows import CALM, COUNTED, WARMUP, JobRow
from experiments.scenario import Arrivals, Client, Engine, Scenario
from experiments.schedule import Place, arrivals
from experiments.seeds import Dimension, number

PROGRESS_S: Final = 0.5
# After the last image was sent, the others may take this long before they are given up.
DRAIN_S: Final = 600.0


class Order(msgspec.Struct, kw_only=True, frozen=True):
    """What the process is told.

    `prepare`: the warm-up, and with `calm` before it each picture once, without haste; then
    it ends. Else what counts. `sent` images were sent before by another process: numbers go on.
    """

    url: str
    scenario: Scenario
    point: str
    replicate: int
    rows: str
    classes: int
    prepare: bool
    calm: bool
    sent: int


class Loader:
    """Sends images and writes rows."""

    def __init__(self, order: Order, transport: Transport, out: IO[bytes]) -> None:
        scenario = order.scenario
        seed = number(scenario.seed, Dimension.RETRIES, order.point, order.replicate)
        self._order = order
        self._transport = transport
        self._limits = limits_of(scenario.client)
        self._clock = Clock(rng=random.Random(seed))
        self._out = out
        self._pictures = images.make(order.scenario.images, order.scenario.seed)
        self._sent = order.sent
        self._ended = 0
        self._stopped = False

    async def run(self) -> None:
        """Either part; says when what counts begins and how far it is."""
        scenario = self._order.scenario
        if self._order.prepare:
            await self._prepare(scenario.stop.warmup_images, scenario.load.concurrency)
            say("prepared", {"sent": self._sent})
            return
        say("began", {"monotonic_s": time.monotonic()})
        progress = asyncio.ensure_future(self._progress())
        try:
            if scenario.load.kind is Arrivals.CLOSED:
                await self._closed(COUNTED, self._enough, scenario.load.concurrency)
            else:
                await self._open()
        finally:
            progress.cancel()
        say("ended", {"sent": self._sent, "ended": self._ended})

    async def _prepare(self, warm: int, concurrency: int) -> None:
        if self._order.calm:
            await self._closed(CALM, lambda sent, _: sent >= len(self._pictures), 2)
        if warm:
            await self._closed(WARMUP, lambda sent, _: sent >= warm, concurrency)

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True

    def _enough(self, sent: int, elapsed_s: float) -> bool:
        stop = self._order.scenario.stop
        full = sent >= stop.minimum_images and elapsed_s >= stop.minimum_s + stop.warmup_s
        return full or elapsed_s >= stop.longest_s

    async def _closed(
        self, phase: str, enough: Callable[[int, float], bool], concurrency: int
    ) -> None:
        began_s, sent = time.monotonic(), 0

        async def one_after_the_other() -> None:
            nonlocal sent
            while not self._stopped and not enough(sent, time.monotonic() - began_s):
                sent += 1
                now_s = time.monotonic()
                await self._one(self._phase(phase, now_s - began_s), now_s)

        await _all([one_after_the_other() for _ in range(concurrency)])

    async def _open(self) -> None:
        order, began_s = self._order, time.monotonic()
        room = asyncio.Semaphore(order.scenario.load.concurrency)
        under_way: set[asyncio.Task[None]] = set()
        place = Place(order.point, order.replicate)

        async def send(at_s: float) -> None:
            async with room:
                await self._one(self._phase(COUNTED, at_s), began_s + at_s)

        times = arrivals(order.scenario.load, place, order.scenario.seed)
        for sent, at_s in enumerate(times):
            if self._stopped or self._enough(sent, at_s):
                break
            await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
            task = asyncio.ensure_future(send(at_s))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await _all(under_way)

    def _phase(self, phase: str, elapsed_s: float) -> str:
        warming = phase == COUNTED and elapsed_s < self._order.scenario.stop.warmup_s
        return WARMUP if warming else phase

    async def _one(self, phase: str, began_s: float) -> None:
        """One image from its wish to its row."""
        picture = self._pictures[self._sent % len(self._pictures)]
        self._sent += 1
        serial = self._sent
        name, body = picture.copy(serial)
        found = await self._ask(name, body)
        self._ended += 1
        order, job = self._order, found.job
        null = order.scenario.cluster.engine is Engine.NULL
        guess = job.result if job is not None else None
        row = JobRow(
            point=order.point,
            replicate=order.replicate,
            phase=phase,
            number=serial,
            picture=picture.name,
            image=image_id(name, body),
            size_bytes=len(body),
            text_bits=picture.text_bits,
            began_s=began_s,
            ended_s=time.monotonic(),
            ok=found.ok,
            error=getattr(found.error, "code", None),
            tries=found.tries,
            job=job.id if job is not None else None,
            state=job.state if job is not None else None,
            class_id=guess.class_id if guess is not None else None,
            label=picture.label,
            right_class=zlib.crc32(body) % order.classes if null else None,
        )
        self._out.write(msgspec.json.encode(row) + b"\n")

    async def _ask(self, name: str, body: bytes) -> Outcome:
        """One image as `classify` carries it; without its threads, which are there for files."""
        now_s, deadline_s = time.monotonic(), self._order.scenario.client.deadline_s
        call = Call(
            self._order.url,
            self._limits,
            self._clock,
            now_s + deadline_s if deadline_s else None,
            now_s,
            on_retry=_ignore,
            on_wait=_ignore,
        )
        journey = Journey(call, self._transport, name, secrets.token_hex(16))
        error: ClientError | None = None
        try:
            await journey.travel(Data(body, name).read(self._limits.image_bytes))
        except ClientError as failed:
            error = failed
        return Outcome(0, name, journey.job, error, journey.tries)

    async def _progress(self) -> None:
        while True:
            say("progress", {"sent": self._sent, "ended": self._ended})
            await asyncio.sleep(PROGRESS_S)


def say(kind: str, fields: dict[str, object]) -> None:
    """One announcement for the runner."""
    sys.stdout.write(f"LOOKOUT {kind} {json.dumps(fields)}\n")
    sys.stdout.flush()


def limits_of(client: Client) -> Limits:
    """The scenario's patience as the library's."""
    return Limits(
        wait_s=client.wait_s,
        silent_s=client.silent_s,
        patience_s=client.patience_s,
        first_patience_s=client.patience_s,
    )


def _ignore(_: object) -> None:
    pass


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Wait for every piece, and raise what one of them raised."""
    await asyncio.gather(*work)


async def _main(order: Order, out: IO[bytes]) -> None:
    async with Transport(order.url, limits_of(order.scenario.client)) as transport:
        loader = Loader(order, transport, out)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, loader.stop)
        longest_s = order.scenario.stop.longest_s + DRAIN_S + order.scenario.client.wait_s
        await asyncio.wait_for(loader.run(), longest_s)


def main(path: Path) -> None:
    """Carry out one order."""
    order = msgspec.json.decode(path.read_bytes(), type=Order)
    # Written as they come: an interrupted replicate shows how far it was.
    with Path(order.rows).open("wb") as out:
        asyncio.run(_main(order, out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
