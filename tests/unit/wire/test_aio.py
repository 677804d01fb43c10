"""The asyncio shell over real sockets, on both loops: good peers, bad peers, ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.unit.wire.link import TOKEN, hello
from wire import aio, codec
from wire import messages as m
from wire.address import UnixAddress
from wire.aio import Admission, Connection, Limits, Server
from wire.connection import INBOX_MESSAGES_MAX
from wire.errors import ConnectionClosed, EnvironmentFault, LocalFault, PeerFault, Rejected
from wire.framing import HEADER_BYTES

DEADLINE_S = 20.0
BEAT = m.Heartbeat(seq=1, progress=0, held=0, executing=0)
ACK = m.HeartbeatAck(seq=1)
Ended = tuple[str, PeerFault | None]
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test on one of the two loops, with a deadline over all of it."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def runner(main: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await main

        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(bounded())

    return runner


class Master:
    """A server that records: who came, what they said, how they ended."""

    def __init__(self, answer: Callable[[Connection, m.Message], None] | None = None) -> None:
        self.peers: asyncio.Queue[Connection] = asyncio.Queue()
        self.heard: asyncio.Queue[m.Message] = asyncio.Queue()
        self.ended: asyncio.Queue[Ended] = asyncio.Queue()
        self._answer = answer

    def on_peer(self, connection: Connection) -> None:
        connection.on_message = self._on_message
        connection.on_closed = self._on_closed
        self.peers.put_nowait(connection)

    def _on_message(self, connection: Connection, message: m.Message) -> None:
        self.heard.put_nowait(message)
        if self._answer is not None:
            self._answer(connection, message)

    def _on_closed(self, connection: Connection, reason: str, fault: PeerFault | None) -> None:
        self.ended.put_nowait((reason, fault))

    async def serve(
        self, address: str = "127.0.0.1:0", token: str | None = TOKEN, **limits: Any
    ) -> Server:
        return await aio.serve(
            address, self.on_peer, token=token, admit=admit, limits=Limits(**limits)
        )


def admit(who: m.Hello, address: str) -> Admission | m.Reject:
    """`eve` is refused, everybody else comes in."""
    if who.name == "eve":
        return m.Reject(code="banned", reason=f"{who.name} at {address} may not come in")
    return Admission(peer=f"w-{who.name}", heartbeat_interval_s=0.5, lease_ttl_s=3)


def echo(connection: Connection, message: m.Message) -> None:
    """Acknowledges heartbeats."""
    if isinstance(message, m.Heartbeat):
        connection.send(m.HeartbeatAck(seq=message.seq))


async def dial(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare socket, for peers that misbehave."""
    return await asyncio.open_connection("127.0.0.1", server.port)


async def read_fault(reader: asyncio.StreamReader) -> m.ProtocolFault:
    """The one frame that the server sends before it closes."""
    data = await reader.read()
    frame_bytes = int.from_bytes(data[:HEADER_BYTES], "big")
    assert len(data) == HEADER_BYTES + frame_bytes
    message = codec.decode(data[HEADER_BYTES:], codec.HANDSHAKE_FROM_CLIENT)
    assert isinstance(message, m.ProtocolFault)
    return message


async def cut_off(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of the stream; False if something was said before it."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to listen, of both kinds."""
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s"


# --- good peers ------------------------------------------------------------------------------


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


# --- who is not let in -----------------------------------------------------------------------


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


async def still_serves(server: Server, master: Master) -> None:
    """A good peer gets in and is answered."""
    worker = await aio.connect(server.address, TOKEN, hello(name="good"))
    worker.send(BEAT)
    while (await master.heard.get()) != BEAT:
        pass


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


async def drip(writer: asyncio.StreamWriter, data: bytes, pause_s: float) -> None:
    """Send so slowly that only a deadline over the whole frame can notice."""
    for i in range(len(data)):
        writer.write(data[i : i + 1])
        await asyncio.sleep(pause_s)


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


# --- peers that misbehave once in ---------------------------------------------------------------


async def joined(server: Server, master: Master) -> tuple[Connection, Connection]:
    """A worker's connection and the master's end of it."""
    worker = await aio.connect(server.address, TOKEN, hello())
    return worker, await master.peers.get()


def raw(connection: Connection) -> asyncio.Transport:
    """The transport under a client's connection, to write what no client would."""
    transport = connection._transport
    assert transport is not None
    return transport


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
        limits = {"frame_timeout_s": 0.2, "frame_rate_floor_bytes_s": 1e6}
        async with await master.serve(**limits) as server:
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
        limits = {"frame_timeout_s": 0.1, "frame_rate_floor_bytes_s": 1e9}
        async with await master.serve(**limits) as server:
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


# --- ends ------------------------------------------------------------------------------------


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


# --- addresses ----------------------------------------------------------------------------------


def test_a_port_in_use_is_said(run: Run) -> None:
    async def main() -> None:
        async with await Master().serve() as server:
            with pytest.raises(EnvironmentFault) as caught:
                await Master().serve(str(server.address))
            assert caught.value.code == "address_in_use"

    run(main())


def test_a_live_unix_socket_is_left_alone_and_a_stale_one_is_replaced(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        master = Master(echo)
        async with await master.serve(f"unix:{path}") as server:
            assert path.stat().st_mode & 0o777 == 0o600
            with pytest.raises(EnvironmentFault) as caught:
                await Master().serve(f"unix:{path}")
            assert caught.value.code == "address_in_use"
            await still_serves(server, master)
        assert not path.exists()

    run(main())


def test_a_file_that_is_no_socket_is_left_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")

    async def main() -> None:
        with pytest.raises(EnvironmentFault):
            await Master().serve(f"unix:{path}")

    run(main())
    assert path.read_text() == "data"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6(run: Run) -> None:
    async def main() -> None:
        try:
            server = await Master(echo).serve("[::1]:0")
        except EnvironmentFault as fault:
            pytest.skip(f"this machine has no IPv6 loopback: {fault}")
        async with server:
            worker = await aio.connect(server.address, TOKEN, hello())
            worker.send(BEAT)
            assert await worker.receive() == ACK

    run(main())


def test_nobody_listening_is_said(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with await Master().serve() as server:
            gone = str(server.address)
        for address in (gone, f"unix:{tmp_path}/none"):
            with pytest.raises(EnvironmentFault) as caught:
                await aio.connect(address, TOKEN, hello())
            assert caught.value.code == "unreachable"

    run(main())


def test_a_caller_that_gets_no_answer_gives_up(run: Run) -> None:
    async def main() -> None:
        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        listener = await asyncio.start_server(silence, "127.0.0.1", 0)
        host, port = listener.sockets[0].getsockname()
        with pytest.raises(PeerFault, match="handshake_timeout"):
            await aio.connect(
                f"{host}:{port}", TOKEN, hello(), limits=Limits(handshake_timeout_s=0.1)
            )
        listener.close()

    run(main())
