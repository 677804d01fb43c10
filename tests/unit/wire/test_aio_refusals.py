"""Who is not let in, and how little a stranger costs."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.unit.wire.link import TOKEN, hello
from tests.unit.wire.shell import (
    ACK,
    BEAT,
    Master,
    Run,
    admit,
    cut_off,
    dial,
    drip,
    echo,
    read_fault,
    still_serves,
)
from wire import aio, codec
from wire import messages as m
from wire.aio import Admission, Limits
from wire.errors import Rejected


@pytest.mark.parametrize(
    ("token", "who", "code"),
    [
        ("wrong", hello(), "bad_token"),
        (None, hello(), "bad_token"),
        (TOKEN, hello(versions=[9]), "version_unsupported"),
        (TOKEN, hello(name="eve"), "banned"),
    ],
)
def test_a_refusal_reaches_the_caller_and_the_log(
    run: Run, caplog: pytest.LogCaptureFixture, token: str | None, who: m.Hello, code: str
) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve() as server:
            with pytest.raises(Rejected) as caught:
                await aio.connect(server.address, token, who)
            assert caught.value.code == code
            assert server.rejections == {code: 1}
            assert master.peers.empty()

    with caplog.at_level(logging.WARNING, "lookout.wire"):
        run(main())
    (line,) = [r.getMessage() for r in caplog.records if "rejected" in r.getMessage()]
    assert f"code={code}" in line
    assert "rejected 127.0.0.1:" in line
    assert f"name={who.name!r}" in line


def test_open_mode_is_said_aloud(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with await Master(echo).serve(token=None) as server:
            worker = await aio.connect(server.address, None, hello())
            worker.send(BEAT)
            assert await worker.receive() == ACK

    with caplog.at_level(logging.WARNING, "lookout.wire"):
        run(main())
    assert "open mode" in caplog.text


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "frame_too_large"),
        (b"\x00\x00\x00\x00", "empty_frame"),
        (b"\x00\x00\x00\x01\xc1", "not_msgpack"),
        (b"\xff\xff\xff\xff" + bytes(2_000_000), "frame_too_large"),
        (bytes(codec.frame(BEAT)), "not_allowed"),
    ],
)
def test_garbage_is_told_why_and_closed(run: Run, sent: bytes, code: str) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve() as server:
            reader, writer = await dial(server)
            writer.write(sent)
            assert (await read_fault(reader)).code == code
            writer.close()
            assert server.rejections == {code: 1}
            await still_serves(server, master)

    run(main())


def test_a_caller_that_says_nothing_is_cut(run: Run) -> None:
    async def main() -> None:
        async with await Master().serve(handshake_timeout_s=0.05) as server:
            reader, writer = await dial(server)
            assert (await read_fault(reader)).code == "handshake_timeout"
            writer.close()

    run(main())


def test_a_caller_that_drips_its_hello_is_cut(run: Run) -> None:
    async def main() -> None:
        async with await Master().serve(handshake_timeout_s=0.2) as server:
            reader, writer = await dial(server)
            dripping = asyncio.create_task(drip(writer, bytes(codec.frame(hello())), 0.02))
            assert (await read_fault(reader)).code == "handshake_timeout"
            dripping.cancel()
            writer.close()

    run(main())


def test_strangers_beyond_the_cap_push_out_the_oldest(run: Run) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(unauthenticated_max=4) as server:
            strangers = [await dial(server) for _ in range(10)]
            for reader, _ in strangers[:6]:
                assert await cut_off(reader)
            assert server.rejections == {"too_many_strangers": 6}
            assert server.unauthenticated <= 4
            await still_serves(server, master)
            for _, writer in strangers:
                writer.close()

    run(main())


def test_a_flood_of_rejections_does_not_flood_the_log(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with await Master().serve() as server:
            for _ in range(200):
                reader, writer = await dial(server)
                writer.write(b"\x00\x00\x00\x00")
                await reader.read()
                writer.close()
            assert server.rejections["empty_frame"] == 200

    with caplog.at_level(logging.WARNING, "lookout.wire"):
        run(main())
    assert 50 <= len(caplog.records) < 100


def test_the_handshakes_deadline_is_over_with_the_handshake(run: Run) -> None:
    async def main() -> None:
        master = Master(echo)
        async with await master.serve(handshake_timeout_s=0.1) as server:
            limits = Limits(handshake_timeout_s=0.1)
            worker = await aio.connect(server.address, TOKEN, hello(), limits=limits)
            await asyncio.sleep(0.2)
            worker.send(BEAT)
            assert await worker.receive() == ACK
            assert master.ended.empty()

    run(main())


def test_our_bug_in_admitting_costs_one_connection(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        master = Master()

        def broken(who: m.Hello, address: str) -> Admission | m.Reject:
            if who.name == "ada":
                raise ZeroDivisionError("a bug of ours")
            return admit(who, address)

        server = await aio.serve("127.0.0.1:0", master.on_peer, token=TOKEN, admit=broken)
        async with server:
            with pytest.raises(Rejected, match="internal_error"):
                await aio.connect(server.address, TOKEN, hello())
            await still_serves(server, master)
            assert len(server.connections) == 1

    run(main())
    assert "ZeroDivisionError" in caplog.text
