"""How connections and the server end: told once, with the reason, nothing lost on the way."""

from __future__ import annotations

import pytest

from tests.unit.wire.link import TOKEN, hello
from tests.unit.wire.shell import (
    ACK,
    BEAT,
    Master,
    Run,
    echo,
    joined,
    still_serves,
)
from wire import aio
from wire import messages as m
from wire.aio import Connection
from wire.errors import ConnectionClosed, EnvironmentFault, LocalFault


def test_the_masters_close_delivers_what_was_sent(run: Run, address: str) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(address) as server:
            worker, peer = await joined(server, master)
            image = bytes(2_000_000)
            peer.send(m.Assign(job="j1", token=1, attempt=1, name="x", image=image))
            peer.close("done with you")
            assert master.ended.empty(), "on_closed was called from within close"
            assert await master.ended.get() == ("done with you", None)
            assert isinstance(await worker.receive(), m.Assign)
            with pytest.raises(ConnectionClosed, match="the peer closed the connection"):
                await worker.receive()
            assert peer.send(ACK) is False

    run(main())


def test_the_peers_close_is_no_fault(run: Run, address: str) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(address) as server:
            worker, _ = await joined(server, master)
            worker.send(m.Goodbye(reason="drained"))
            worker.close("leaving")
            assert await master.heard.get() == m.Goodbye(reason="drained")
            assert await master.ended.get() == ("the peer closed the connection", None)
            assert not server.rejections

    run(main())


def test_an_end_is_told_once(run: Run) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve() as server:
            worker, peer = await joined(server, master)
            peer.close("first")
            peer.abort("second")
            peer.reject("bad_message", "third")
            assert await master.ended.get() == ("first", None)
            with pytest.raises(ConnectionClosed):
                await worker.receive()
        assert master.ended.empty()

    run(main())


def test_a_rule_above_the_wire_can_reject(run: Run) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve() as server:
            worker, peer = await joined(server, master)
            peer.reject("too_many_leases", "9 leases were started, 2 were granted")
            with pytest.raises(ConnectionClosed, match="9 leases were started"):
                await worker.receive()
            _, fault = await master.ended.get()
            assert fault is not None
            assert fault.code == "too_many_leases"
            assert server.rejections == {"too_many_leases": 1}

    run(main())


def test_our_bug_in_one_message_costs_one_connection(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(connection: Connection, message: m.Message) -> None:
        if connection.hello.name == "ada":
            raise ZeroDivisionError("a bug of ours")

    async def main() -> None:
        master = Master(fail)
        async with await master.serve() as server:
            worker, _ = await joined(server, master)
            worker.send(BEAT)
            assert await master.ended.get() == ("internal error", None)
            await still_serves(server, master)

    run(main())
    assert "ZeroDivisionError" in caplog.text
    assert "handling Heartbeat" in caplog.text


def test_a_message_that_may_not_be_said_is_our_bug_and_sends_nothing(run: Run) -> None:
    async def main() -> None:
        master = Master(echo)
        async with await master.serve() as server:
            worker, _ = await joined(server, master)
            with pytest.raises(LocalFault):
                worker.send(ACK)
            worker.send(BEAT)
            assert await worker.receive() == ACK

    run(main())


def test_closing_the_server_ends_everybody_within_the_linger(run: Run, address: str) -> None:
    async def main() -> None:
        master = Master()
        server = await master.serve(address, linger_s=0.1)
        worker, _ = await joined(server, master)
        worker.pause_reading()
        server.close("going home")
        await server.wait_closed()
        assert await master.ended.get() == ("going home", None)
        assert not server.connections
        with pytest.raises(EnvironmentFault, match="can't reach"):
            await aio.connect(server.address, TOKEN, hello())

    run(main())
