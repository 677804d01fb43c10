"""The link over real sockets, against a master that the test plays by hand."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.master import FakeMaster
from wire import messages as m
from wire.address import parse_address
from wire.errors import ConnectionClosed
from worker.events import ConnectionLost, Event, JoinFailed, Welcomed
from worker.heartbeat import Heartbeat
from worker.link import Link, LinkConfig
from worker.vitals import Vitals

TIMEOUT_S = 20.0
HELLO = m.Hello(versions=[m.VERSION], role="worker", name="w", incarnation="i", slots=4)
ASSIGN = m.Assign(job="j1", token=1, attempt=1, name="x", image=b"bytes")


class Caller:
    """A link and the events that it posts."""

    def __init__(self, address: str, token: str | None = "secret") -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.chunks: queue.Queue[m.WeightsChunk] = queue.Queue()
        self.lost = threading.Event()
        self.vitals = Vitals()
        config = LinkConfig(parse_address(address), token, HELLO, handshake_timeout_s=1.0)
        self.link = Link(config, self.vitals, self.events.put, self.chunks.put, self.lost.set)

    def event(self) -> Event:
        return self.events.get(timeout=TIMEOUT_S)


@pytest.fixture
def call() -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def make(address: str, token: str | None = "secret") -> Caller:
        made.append(Caller(address, token))
        made[-1].link.connect(0.0)
        return made[-1]

    yield make
    for caller in made:
        caller.link.close(linger_s=0.0)


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with FakeMaster() as one:
        yield one


def test_welcomed_then_messages_then_lost(master: FakeMaster, call: Callable[..., Caller]) -> None:
    caller = call(master.address)
    peer = master.accept()
    assert caller.event() == Welcomed("w1", 10.0)
    peer.send(ASSIGN)
    assert caller.event() == ASSIGN
    peer.send(m.WeightsChunk(sha256="a" * 64, offset=0, size_bytes=1, data=b"x"))
    assert caller.chunks.get(timeout=TIMEOUT_S).data == b"x"
    started = m.Started(leases=[m.LeaseRef(job="j1", token=1)])
    assert caller.link.send(started)
    assert peer.expect(m.Started) == started
    peer.close()
    event = caller.event()
    assert isinstance(event, ConnectionLost)
    assert caller.lost.is_set()
    assert not caller.link.send(started), "there is nothing to send on"


def test_beats_from_the_first_moment_with_the_numbers_of_the_moment(
    master: FakeMaster, call: Callable[..., Caller]
) -> None:
    caller = call(master.address)
    caller.vitals.set_leases(held=3, executing=2)
    peer = master.accept()
    caller.vitals.advance()
    beats = peer.wait_heartbeats(3)
    assert [beat.seq for beat in beats[:3]] == [0, 1, 2]
    assert (beats[2].progress, beats[2].held, beats[2].executing) == (1, 3, 2)


def test_a_silent_master_is_given_up_after_the_leases_lifetime(
    call: Callable[..., Caller],
) -> None:
    with FakeMaster(heartbeat_interval_s=0.05, lease_ttl_s=0.3) as master:
        caller = call(master.address)
        peer = master.accept()
        peer.answers_heartbeats = False
        assert isinstance(caller.event(), Welcomed)
        event = caller.event()
        assert isinstance(event, ConnectionLost)
        assert "sent nothing for 0.3 s" in event.reason


def test_a_master_that_is_slow_to_send_one_frame_is_not_dead(
    call: Callable[..., Caller],
) -> None:
    with FakeMaster(heartbeat_interval_s=0.05, lease_ttl_s=0.4) as master:
        caller = call(master.address)
        peer = master.accept()
        peer.answers_heartbeats = False
        assert isinstance(caller.event(), Welcomed)
        data = peer._session.send(ASSIGN)
        for index in range(len(data)):
            peer.wait_heartbeats(len(peer.heartbeats) + 1)
            peer._sock.sendall(data[index : index + 1])
        assert caller.event() == ASSIGN


def test_a_goodbye_ends_it(master: FakeMaster, call: Callable[..., Caller]) -> None:
    caller = call(master.address)
    master.accept().send(m.Goodbye(reason="upgrade"))
    assert isinstance(caller.event(), Welcomed)
    event = caller.event()
    assert isinstance(event, ConnectionLost)
    assert "upgrade" in event.reason


def test_a_wrong_token_is_hopeless(master: FakeMaster, call: Callable[..., Caller]) -> None:
    caller = call(master.address, "wrong")
    master.reject_one()
    event = caller.event()
    assert isinstance(event, JoinFailed)
    assert (event.code, event.hopeless) == ("bad_token", True)


def test_a_refusal_that_may_pass_is_not_hopeless(
    master: FakeMaster, call: Callable[..., Caller]
) -> None:
    master.rejection = m.Reject(code="draining", reason="the master is stopping")
    caller = call(master.address)
    master.reject_one()
    assert caller.event() == JoinFailed("draining", "the master is stopping", hopeless=False)


def test_nobody_there_is_not_hopeless(call: Callable[..., Caller]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    event = call(f"127.0.0.1:{port}").event()
    assert isinstance(event, JoinFailed)
    assert (event.code, event.hopeless) == ("unreachable", False)
    assert f"127.0.0.1:{port}" in event.reason


def test_a_name_that_does_not_exist_is_hopeless(
    call: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # no test asks a name server
    event = call("no-such-host.invalid").event()
    assert isinstance(event, JoinFailed)
    assert event.hopeless
    assert "no-such-host.invalid" in event.reason


def test_a_server_of_another_kind_is_hopeless(call: Callable[..., Caller]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = call(f"127.0.0.1:{listener.getsockname()[1]}")
        listener.settimeout(TIMEOUT_S)
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            event = caller.event()
    assert isinstance(event, JoinFailed)
    assert event.hopeless
    assert "not as a Lookout master" in event.reason


def test_a_server_that_says_nothing_is_tried_again(call: Callable[..., Caller]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        event = call(f"127.0.0.1:{listener.getsockname()[1]}").event()
    assert isinstance(event, JoinFailed)
    assert (event.code, event.hopeless) == ("handshake_timeout", False)


# --- the heartbeat's own thread ----------------------------------------------------------


def test_a_pause_of_the_whole_process_is_noticed() -> None:
    now = [0.0]
    sent: list[m.Message] = []
    pauses: list[float] = []
    ended = threading.Event()

    def send(message: m.Message) -> None:
        sent.append(message)
        now[0] += 2.9 if len(sent) == 1 else 11.0
        if len(sent) == 3:
            ended.set()
            raise ConnectionClosed("the end")

    Heartbeat(send, Vitals(), 1.0, pauses.append, lambda: now[0]).start()
    assert ended.wait(TIMEOUT_S)
    assert pauses == [11.0]
