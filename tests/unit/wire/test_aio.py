"""The asyncio shell with good peers, over real sockets and on both loops."""

from __future__ import annotations

import asyncio

from tests.unit.wire.link import TOKEN, hello
from tests.unit.wire.shell import (
    ACK,
    BEAT,
    Master,
    Run,
    admit,
    echo,
)
from wire import aio
from wire import messages as m
from wire.address import UnixAddress
from wire.aio import Connection
from wire.connection import INBOX_MESSAGES_MAX


def test_messages_pass_both_ways(run: Run, address: str) -> None:
    async def main() -> None:
        master = Master(echo)
        async with await master.serve(address) as server:
            worker = await aio.connect(server.address, TOKEN, hello())
            peer = await master.peers.get()
            assert peer.hello == hello()
            assert worker.welcome.peer == peer.welcome.peer == "w-ada"
            assert worker.welcome.lease_ttl_s == 3
            assert server.connections == {peer}
            assert server.unauthenticated == 0
            assert worker.send(BEAT)
            assert await worker.receive() == ACK
            assert await master.heard.get() == BEAT

    run(main())


def test_the_peers_address_is_known(run: Run, address: str) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(address) as server:
            await aio.connect(server.address, TOKEN, hello())
            peer = await master.peers.get()
            if isinstance(server.address, UnixAddress):
                assert peer.address == address
                assert peer.socket_options == {}
            else:
                assert peer.address.startswith("127.0.0.1:")
                assert peer.address != str(server.address)
                assert peer.socket_options["TCP_NODELAY"] == 1
            assert peer.socket is not None

    run(main())


def test_large_frames_pass_both_ways_in_order(run: Run, address: str) -> None:
    sizes = [1, 100_000, 5_000_000, 40_000, 3, 1_000_000]

    def bounce(connection: Connection, message: m.Message) -> None:
        assert isinstance(message, m.Submit)
        data = message.images[0].data
        connection.send(m.Image(request=message.request, name="", media_type="", data=data))

    async def main() -> None:
        async with await Master(bounce).serve(address) as server:
            web = await aio.connect(server.address, TOKEN, hello("web"))
            for i, size in enumerate(sizes):
                image = m.Upload(name="", media_type="", data=bytes([i]) * size)
                web.send(m.Submit(request=i, images=[image]))
                await web.drain()
            for i, size in enumerate(sizes):
                answer = await web.receive()
                assert isinstance(answer, m.Image)
                assert (answer.request, answer.data) == (i, bytes([i]) * size)

    run(main())


def test_messages_right_behind_welcome_reach_a_callback_set_later(run: Run) -> None:
    async def main() -> None:
        def on_peer(connection: Connection) -> None:
            for seq in range(3):
                connection.send(m.HeartbeatAck(seq=seq))

        server = await aio.serve("127.0.0.1:0", on_peer, token=None, admit=admit)
        async with server:
            worker = await aio.connect(server.address, None, hello())
            assert await worker.receive() == m.HeartbeatAck(seq=0)
            got: asyncio.Queue[m.Message] = asyncio.Queue()
            worker.on_message = lambda _, message: got.put_nowait(message)
            assert [await got.get(), await got.get()] == [
                m.HeartbeatAck(seq=1),
                m.HeartbeatAck(seq=2),
            ]

    run(main())


def test_an_inbox_that_nobody_reads_stops_the_reading(run: Run) -> None:
    n = 3 * INBOX_MESSAGES_MAX

    async def main() -> None:
        master = Master()
        async with await master.serve() as server:
            worker = await aio.connect(server.address, TOKEN, hello())
            peer = await master.peers.get()
            for seq in range(n):
                peer.send(m.HeartbeatAck(seq=seq))
            assert [await worker.receive() for _ in range(n)] == [
                m.HeartbeatAck(seq=seq) for seq in range(n)
            ]

    run(main())


def test_many_workers_at_once(run: Run) -> None:
    async def main() -> None:
        async with await Master(echo).serve() as server:
            names = [f"w{i}" for i in range(100)]
            workers = await asyncio.gather(
                *(aio.connect(server.address, TOKEN, hello(name=name)) for name in names)
            )
            for worker in workers:
                worker.send(BEAT)
            assert [await worker.receive() for worker in workers] == [ACK] * 100
            assert len(server.connections) == 100

    run(main())


def test_what_is_sent_in_one_turn_goes_out_in_one_write(run: Run, address: str) -> None:
    """Measured: a write per message took a quarter of the core's time."""

    async def main() -> None:
        master = Master()
        async with await master.serve(address) as server:
            worker = await aio.connect(server.address, TOKEN, hello())
            peer = await master.peers.get()
            transport = peer._transport
            assert transport is not None
            writes: list[int] = []
            write = transport.writelines

            class Counting:
                def __getattr__(self, name: str) -> object:
                    return getattr(transport, name)

                def writelines(self, frames: list[bytearray]) -> None:
                    writes.append(len(frames))
                    write(frames)

            peer._transport = Counting()  # type: ignore[assignment]
            for seq in range(5):
                peer.send(m.HeartbeatAck(seq=seq))
            assert peer.write_buffer_bytes > 0
            assert writes == []
            assert [await worker.receive() for _ in range(5)] == [
                m.HeartbeatAck(seq=seq) for seq in range(5)
            ]
            assert writes == [5]
            assert peer.write_buffer_bytes == 0
            peer._transport = transport

    run(main())


def test_what_may_wait_goes_out_with_what_may_not_and_in_order(run: Run, address: str) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(address) as server:
            worker = await aio.connect(server.address, TOKEN, hello())
            peer = await master.peers.get()
            peer.send(m.HeartbeatAck(seq=1), gather_s=3600.0)
            peer.send(m.HeartbeatAck(seq=2), gather_s=3600.0)
            await asyncio.sleep(0)
            assert peer.write_buffer_bytes > 0, "nothing was written in the next turn"
            peer.send(m.HeartbeatAck(seq=3))
            peer.send(m.HeartbeatAck(seq=4), gather_s=3600.0)
            got = [await worker.receive() for _ in range(4)]
            assert got == [m.HeartbeatAck(seq=seq) for seq in (1, 2, 3, 4)]
            peer.send(m.HeartbeatAck(seq=5), gather_s=0.001)
            assert await worker.receive() == m.HeartbeatAck(seq=5)
            peer.send(m.HeartbeatAck(seq=6), gather_s=3600.0)
            peer.close("done")
            assert await worker.receive() == m.HeartbeatAck(seq=6), "the end doesn't wait"

    run(main())


def test_what_was_sent_before_the_end_arrives(run: Run, address: str) -> None:
    async def main() -> None:
        master = Master()
        async with await master.serve(address) as server:
            worker = await aio.connect(server.address, TOKEN, hello())
            peer = await master.peers.get()
            for seq in range(3):
                peer.send(m.HeartbeatAck(seq=seq))
            peer.close("that was all")
            for seq in range(3):
                assert await worker.receive() == m.HeartbeatAck(seq=seq)

    run(main())
