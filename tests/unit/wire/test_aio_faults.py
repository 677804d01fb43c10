"""Peers that misbehave once they are in."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.wire.shell import (
    BEAT,
    Master,
    Run,
    joined,
    raw,
    still_serves,
)
from wire import codec
from wire import messages as m
from wire.errors import ConnectionClosed


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x7f\xff\xff\xff", "frame_too_large"),
        (b"\x00\x20\x00\x00", "frame_too_large"),
        (b"\x00\x00\x00\x02\x81\xa1", "not_msgpack"),
        (bytes(codec.frame(m.Shutdown(request=1))), "not_allowed"),
        (
            bytes(codec.frame(m.Hello(versions=[1], role="admin", name="a", incarnation="b"))),
            "not_allowed",
        ),
    ],
)
def test_a_fault_ends_the_connection_with_messages_ahead_of_it_delivered(
    run: Run, sent: bytes, code: str
) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve() as server:
            worker, _ = await joined(server, master)
            raw(worker).write(bytes(codec.frame(BEAT)) + sent + bytes(codec.frame(BEAT)))
            assert await master.heard.get() == BEAT
            _, fault = await master.ended.get()
            assert fault is not None
            assert fault.code == code
            with pytest.raises(ConnectionClosed, match=code):
                await worker.receive()
            assert master.heard.empty()
            await still_serves(server, master)

    run(main())


def test_a_frame_that_drips_is_cut_though_bytes_keep_coming(run: Run) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(frame_timeout_s=0.2, frame_rate_floor_bytes_s=1e6) as server:
            worker, _ = await joined(server, master)
            transport = raw(worker)
            transport.write(b"\x00\x00\x40\x00")
            while master.ended.empty():
                transport.write(b"x")
                await asyncio.sleep(0.01)
            _, fault = master.ended.get_nowait()
            assert fault is not None
            assert fault.code == "frame_timeout"

    run(main())


def test_many_whole_frames_are_not_taken_for_one_slow_one(run: Run) -> None:
    """Every read ends inside a frame, for longer than one frame may take."""

    async def main() -> None:
        master = Master()
        async with await master.serve(frame_timeout_s=0.1, frame_rate_floor_bytes_s=1e9) as server:
            worker, _ = await joined(server, master)
            frame = bytes(codec.frame(BEAT))
            raw(worker).write(frame[:10])
            for _ in range(40):
                await asyncio.sleep(0.01)
                raw(worker).write(frame[10:] + frame[:10])
            raw(worker).write(frame[10:])
            for _ in range(41):
                await master.heard.get()
            assert master.ended.empty()

    run(main())


def test_a_stream_that_ends_inside_a_frame_is_named(run: Run) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve() as server:
            worker, _ = await joined(server, master)
            raw(worker).write(bytes(codec.frame(BEAT))[:-3])
            raw(worker).close()
            _, fault = await master.ended.get()
            assert fault is not None
            assert fault.code == "truncated_frame"

    run(main())


def test_a_peer_that_does_not_read_is_cut(run: Run) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(write_bytes_max=300_000) as server:
            worker, peer = await joined(server, master)
            worker.pause_reading()
            chunk = m.WeightsChunk(sha256="0" * 64, offset=0, size_bytes=1, data=bytes(100_000))
            sends = 0
            while peer.send(chunk):
                sends += 1
                assert sends < 1000
                # The kernel's buffers fill in between; `send` itself reports nothing.
                assert master.ended.empty()
                await asyncio.sleep(0)
            assert master.ended.empty(), "on_closed was called from within send"
            _, fault = await master.ended.get()
            assert fault is not None
            assert fault.code == "slow_reader"
            assert peer.send(chunk) is False

    run(main())


def test_drain_waits_for_a_slow_reader(run: Run) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(write_high_bytes=100_000) as server:
            worker, peer = await joined(server, master)
            worker.pause_reading()
            chunk = m.WeightsChunk(sha256="0" * 64, offset=0, size_bytes=1, data=bytes(1_000_000))
            while peer.write_buffer_bytes < 2_000_000:
                peer.send(chunk)
                await asyncio.sleep(0)
            waiting = asyncio.create_task(peer.drain())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            worker.resume_reading()
            await waiting
            assert peer.write_buffer_bytes < 100_000

    run(main())


def test_drain_ends_with_the_connection(run: Run) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(write_high_bytes=1000) as server:
            worker, peer = await joined(server, master)
            worker.pause_reading()
            chunk = m.WeightsChunk(sha256="0" * 64, offset=0, size_bytes=1, data=bytes(9_000_000))
            peer.send(chunk)
            waiting = asyncio.create_task(peer.drain())
            await asyncio.sleep(0)
            peer.abort("enough")
            with pytest.raises(ConnectionClosed, match="enough"):
                await waiting

    run(main())
