"""The blocking shell against a real asyncio server, and against masters that misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.wire.link import TOKEN, hello, opened, server
from wire import aio, blocking, codec
from wire import messages as m
from wire.address import UnixAddress
from wire.aio import Admission, Connection
from wire.blocking import BlockingConnection
from wire.errors import ConnectionClosed, EnvironmentFault, LocalFault, PeerFault, Rejected
from wire.session import Session

DEADLINE_S = 20.0
BEAT = m.Heartbeat(seq=1, progress=0, held=0, executing=0)
ACK = m.HeartbeatAck(seq=1)


def answer(connection: Connection, message: m.Message) -> None:
    """A small master: echoes heartbeats and images, leaves on `Goodbye`."""
    match message:
        case m.Heartbeat():
            connection.send(m.HeartbeatAck(seq=message.seq))
        case m.Submit():
            data = hashlib.sha256(message.images[0].data).digest() + message.images[0].data
            connection.send(m.Image(request=message.request, name="", media_type="", data=data))
        case m.Goodbye():
            connection.close("goodbye")
        case m.Draining():
            connection.pause_reading()


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a master listens, in a thread of its own."""
    where = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s"
    started: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        def on_peer(connection: Connection) -> None:
            connection.on_message = answer

        def admit(who: m.Hello, address: str) -> Admission | m.Reject:
            return Admission(peer=f"w-{who.name}")

        async with await aio.serve(where, on_peer, token=TOKEN, admit=admit) as master:
            started.set_result(str(master.address))
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    yield started.result(DEADLINE_S)
    loop.call_soon_threadsafe(stop.set)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    loop.close()


def test_messages_pass_both_ways(address: str) -> None:
    with blocking.connect(address, TOKEN, hello()) as worker:
        assert worker.welcome.peer == "w-ada"
        worker.send(BEAT)
        assert worker.receive(DEADLINE_S) == ACK
        assert worker.is_open
    assert not worker.is_open


def test_several_messages_in_one_write_come_in_order_or_not_at_all(address: str) -> None:
    beats = [m.Heartbeat(seq=seq, progress=0, held=0, executing=0) for seq in range(3)]
    with blocking.connect(address, TOKEN, hello()) as worker:
        with pytest.raises(LocalFault, match="may not send"):
            worker.send(BEAT, m.GetStats(request=1))
        worker.send(*beats)
        assert [worker.receive(DEADLINE_S) for _ in beats] == [
            m.HeartbeatAck(seq=beat.seq) for beat in beats
        ]


def test_receive_returns_none_in_time_and_loses_nothing(address: str) -> None:
    with blocking.connect(address, TOKEN, hello()) as worker:
        began_s = time.monotonic()
        assert worker.receive(0.05) is None
        assert worker.receive(0) is None
        assert 0.05 <= time.monotonic() - began_s < 5
        worker.send(BEAT)
        assert worker.receive(None) == ACK


def test_threads_send_at_once_and_every_frame_is_whole(address: str) -> None:
    sizes = [10, 70_000, 300_000, 2_000_000]
    with blocking.connect(address, TOKEN, hello("web")) as web:

        def send(request: int) -> None:
            data = bytes([request]) * sizes[request % len(sizes)]
            image = m.Upload(name="", media_type="", data=data)
            web.send(m.Submit(request=request, images=[image]))

        with ThreadPoolExecutor(8) as pool:
            sending = [pool.submit(send, request) for request in range(24)]
            for _ in range(24):
                message = web.receive(DEADLINE_S)
                assert isinstance(message, m.Image)
                digest, data = message.data[:32], message.data[32:]
                assert hashlib.sha256(data).digest() == digest
                assert set(data) == {message.request}
                assert len(data) == sizes[message.request % len(sizes)]
            for future in sending:
                future.result(DEADLINE_S)


@pytest.mark.parametrize("end", ["shutdown", "close"])
def test_another_thread_wakes_a_receive(address: str, end: str) -> None:
    worker = blocking.connect(address, TOKEN, hello())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(worker.receive, None)
        worker.send(BEAT)
        assert waiting.result(DEADLINE_S) == ACK
        waiting = pool.submit(worker.receive, None)
        getattr(worker, end)()
        with pytest.raises(ConnectionClosed, match="by this end"):
            waiting.result(DEADLINE_S)
    with pytest.raises(ConnectionClosed, match="by this end"):
        worker.send(BEAT)
    with pytest.raises(ConnectionClosed, match="by this end"):
        worker.receive(0)
    worker.close()


def test_what_was_sent_before_a_close_arrives(address: str) -> None:
    with blocking.connect(address, TOKEN, hello()) as worker:
        worker.send(BEAT)
        worker.send(m.Goodbye(reason="done"))
        assert worker.receive(DEADLINE_S) == ACK
        with pytest.raises(ConnectionClosed, match="the master closed"):
            worker.receive(DEADLINE_S)
        with pytest.raises(ConnectionClosed, match="the master closed"):
            worker.send(BEAT)


def test_a_master_that_does_not_read_ends_a_send_in_time(address: str) -> None:
    with blocking.connect(address, TOKEN, hello(), send_timeout_s=0.2) as worker:
        worker.send(m.Draining(reason="makes this master stop reading"))
        released = m.Released(leases=[], reason="x" * 4000)
        with pytest.raises(ConnectionClosed, match="does not read"):
            for _ in range(100_000):
                worker.send(released)
        with pytest.raises(ConnectionClosed, match="does not read"):
            worker.receive(DEADLINE_S)


def test_a_message_that_may_not_be_said_is_our_bug_and_sends_nothing(address: str) -> None:
    with blocking.connect(address, TOKEN, hello()) as worker:
        with pytest.raises(LocalFault):
            worker.send(ACK)
        worker.send(BEAT)
        assert worker.receive(DEADLINE_S) == ACK


@pytest.mark.parametrize(
    ("token", "who", "code"),
    [("wrong", hello(), "bad_token"), (TOKEN, hello(versions=[3]), "version_unsupported")],
)
def test_a_refusal_is_raised(address: str, token: str, who: m.Hello, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        blocking.connect(address, token, who)
    assert caught.value.code == code


def test_nobody_listening_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        gone = f"127.0.0.1:{bound.getsockname()[1]}"
    for address in (gone, f"unix:{tmp_path}/none"):
        with pytest.raises(EnvironmentFault) as caught:
            blocking.connect(address, TOKEN, hello())
        assert caught.value.code == "unreachable"
        assert address in caught.value.reason


# --- masters that misbehave -------------------------------------------------------------------


@contextmanager
def bad_master(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listener that treats its one caller as `behave` says."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(DEADLINE_S)

        def run() -> None:
            with listener.accept()[0] as sock:
                sock.settimeout(DEADLINE_S)
                behave(sock)

        running = pool.submit(run)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        running.result(DEADLINE_S)


def welcome(sock: socket.socket) -> Session:
    """Pass the handshake as a master does."""
    session = server()
    while not session.is_open:
        session.receive(sock.recv(65536))
        for data in session.data_to_send():
            sock.sendall(data)
    return session


def until_end(sock: socket.socket) -> bytes:
    """Everything that the caller still says."""
    heard = b""
    while data := sock.recv(65536):
        heard += data
    return heard


def test_a_silent_master_is_given_up() -> None:
    def behave(sock: socket.socket) -> None:
        until_end(sock)

    with (
        bad_master(behave) as address,
        pytest.raises(PeerFault, match="handshake_timeout"),
    ):
        blocking.connect(address, TOKEN, hello(), handshake_timeout_s=0.1)


def test_a_web_server_is_no_master() -> None:
    def behave(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        until_end(sock)

    with bad_master(behave) as address, pytest.raises(PeerFault, match="frame_too_large"):
        blocking.connect(address, TOKEN, hello())


def test_a_master_that_leaves_in_the_handshake_is_named() -> None:
    with bad_master(lambda sock: None) as address, pytest.raises(ConnectionClosed):
        blocking.connect(address, TOKEN, hello())


def test_an_image_that_comes_in_drips_is_a_sign_of_life_and_arrives_whole() -> None:
    """A wait that ends with less than it waited for reads what is there; the last byte wakes."""
    image = m.Image(request=1, name="", media_type="", data=bytes(5 * blocking.WAKE_BYTES_MAX))
    whole = bytes(codec.frame(image))
    drips = [whole[:10], whole[10:2000], whole[2000 : blocking.WAKE_BYTES_MAX], whole[-1:]]
    rest = whole[blocking.WAKE_BYTES_MAX : -1]
    seen = threading.Semaphore(0)

    def behave(sock: socket.socket) -> None:
        welcome(sock)
        for drip in (*drips[:3], rest, drips[3], whole):
            sock.sendall(drip)
            assert seen.acquire(timeout=DEADLINE_S)
        until_end(sock)

    with (
        bad_master(behave) as address,
        blocking.connect(address, TOKEN, hello("web")) as web,
    ):
        for arrived in (10, 2000, blocking.WAKE_BYTES_MAX, len(whole) - 1):
            deadline_s = time.monotonic() + DEADLINE_S
            while web.pending_bytes < arrived and time.monotonic() < deadline_s:
                assert web.receive(0.05) is None
            assert web.pending_bytes == arrived
            seen.release()
        for _ in range(2):
            assert web.receive(DEADLINE_S) == image
            seen.release()


def test_a_fault_of_the_master_comes_after_its_good_messages_and_is_reported_to_it() -> None:
    heard: list[bytes] = []

    def behave(sock: socket.socket) -> None:
        welcome(sock)
        sock.sendall(bytes(codec.frame(ACK)) * 2 + b"\x00\x00\x00\x01\xc1")
        heard.append(until_end(sock))

    with bad_master(behave) as address, blocking.connect(address, TOKEN, hello()) as worker:
        assert worker.receive(DEADLINE_S) == ACK
        assert worker.receive(DEADLINE_S) == ACK
        for _ in range(2):
            with pytest.raises(PeerFault, match="not_msgpack"):
                worker.receive(DEADLINE_S)
        with pytest.raises(ConnectionClosed):
            worker.send(BEAT)
    assert b"ProtocolFault" in heard[0]


def test_a_fault_that_the_master_reports_ends_it() -> None:
    def behave(sock: socket.socket) -> None:
        session = welcome(sock)
        sock.sendall(session.farewell(PeerFault("bad_message", "what was that?")))
        until_end(sock)

    with (
        bad_master(behave) as address,
        blocking.connect(address, TOKEN, hello()) as worker,
        pytest.raises(ConnectionClosed, match="what was that"),
    ):
        worker.receive(DEADLINE_S)


def test_a_master_that_resets_the_connection_is_named() -> None:
    def behave(sock: socket.socket) -> None:
        welcome(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with (
        bad_master(behave) as address,
        blocking.connect(address, TOKEN, hello()) as worker,
        pytest.raises(ConnectionClosed, match="the connection broke"),
    ):
        worker.receive(DEADLINE_S)


def test_the_farewell_does_not_wait_for_a_blocked_sender() -> None:
    """`_accuse` only tries the send lock: whoever holds it may be stuck in a full socket."""
    ours, theirs = socket.socketpair()
    session, _ = opened()
    connection = BlockingConnection(ours, session, UnixAddress("/x"), 1.0)
    with theirs, connection._send_lock:
        theirs.sendall(b"\x00\x00\x00\x01\xc1")
        with pytest.raises(PeerFault, match="not_msgpack"):
            connection.receive(DEADLINE_S)
    connection.close()
