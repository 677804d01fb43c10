"""The relay of messages: what it loses costs what it should, and not one byte changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import numpy as np

from experiments.relay import Counts, Relay, suffer
from experiments.scenario import Message


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def frame(kind: str, **fields: object) -> bytes:
    body = msgspec.msgpack.encode({"type": kind, **fields})
    return len(body).to_bytes(4, "big") + body


def test_a_lost_message_costs_its_timeout_until_a_try_arrives() -> None:
    waits: list[float] = []
    counts = Counts()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def many() -> None:
        for _ in range(4000):
            await suffer(Message(loss=0.4, timeout_s=5, delay_s=1), rng_, counts, sleep)

    rng_ = rng()
    asyncio.run(many())
    assert waits.count(1) == 4000
    # Tries until success are geometric: 0.4/0.6 losses a message on average.
    assert abs(counts.lost / 4000 - 0.4 / 0.6) < 0.06
    assert waits.count(5) == counts.lost


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def through(
    use: Callable[[asyncio.StreamReader, asyncio.StreamWriter, Relay], Awaitable[None]],
    faults: Message,
    *,
    framed: bool = True,
    assigned: Callable[[], None] | None = None,
) -> Relay:
    """Run `use` on a connection through a relay to a server that sends everything back."""

    async def run() -> Relay:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        target = ("127.0.0.1", server.sockets[0].getsockname()[1])
        relay = Relay(target, faults, rng(), framed=framed, on_assign=assigned)
        reader, writer = await asyncio.open_connection("127.0.0.1", await relay.start())
        try:
            async with asyncio.timeout(20):
                await use(reader, writer, relay)
        finally:
            writer.transport.abort()
            await relay.close()
            server.close()
        return relay

    return asyncio.run(run())


def test_frames_pass_whole_and_in_order_however_they_are_split() -> None:
    sent = [frame("Assign", job=f"j{n}", image=bytes(n * 1000)) for n in range(8)]
    told: list[int] = []

    async def use(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, relay: Relay) -> None:
        stream = b"".join(sent)
        for start in range(0, len(stream), 777):
            writer.write(stream[start : start + 777])
            await writer.drain()
        assert await reader.readexactly(len(stream)) == stream

    relay = through(use, Message(), assigned=lambda: told.append(1))
    assert len(told) == 16, "told on the way there and on the echo's way back"
    assert (relay.counts.messages, relay.counts.lost) == (16, 0)


def test_heartbeats_pass_a_message_that_waits() -> None:
    async def use(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, relay: Relay) -> None:
        job, beat = frame("Assign", job="j1"), frame("Heartbeat")
        writer.write(job + beat)
        assert await reader.readexactly(len(beat)) == beat
        assert await reader.readexactly(len(job)) == job

    through(use, Message(delay_s=0.2))


def test_a_cut_holds_everything_and_healing_lets_it_through() -> None:
    async def use(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, relay: Relay) -> None:
        beat = frame("Heartbeat")
        relay.cut()
        writer.write(beat)
        waiting = asyncio.ensure_future(reader.readexactly(len(beat)))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        relay.heal()
        assert await waiting == beat

    through(use, Message())


def test_a_lost_reply_ends_the_connection_after_the_request_arrived() -> None:
    answers = []

    async def use(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, relay: Relay) -> None:
        for _ in range(40):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            answer = await reader.read(100)
            answers.append(answer)
            if not answer:
                return

    relay = through(use, Message(lost_replies=0.3), framed=False)
    assert answers[-1] == b"" and relay.counts.lost == 1
    assert relay.counts.messages == len(answers)
