"""The thread that receives over all streams, against a master that the test plays by hand."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.master import FakeMaster, FakePeer
from tests.shared import wait_until
from wire import blocking
from wire import messages as m
from worker.receiver import BUG, Receiver
from worker.stream import Stream

TIMEOUT_S = 20.0
INTERVAL_S = 0.05
HELLO = m.Hello(versions=[m.VERSION], role="worker", name="w", incarnation="i", slots=4)


def assign(number: int) -> m.Assign:
    return m.Assign(job=f"j{number}", token=number, attempt=1, name="x", image=b"bytes")


class Owner:
    """Notes what it is told, and on which thread; `hold` makes it dwell on every end."""

    def __init__(self) -> None:
        self.messages: queue.Queue[m.Message] = queue.Queue()
        self.ends: queue.Queue[tuple[int, str]] = queue.Queue()
        self.threads: set[int] = set()
        self.hold = threading.Event()
        self.hold.set()
        self.fails = False

    def received(self, stream: Stream, message: m.Message) -> None:
        self.threads.add(threading.get_ident())
        if self.fails:
            raise RuntimeError("the owner has a bug")
        if not isinstance(message, m.HeartbeatAck):
            self.messages.put(message)

    def ended(self, stream: Stream, reason: str) -> None:
        self.ends.put((stream.number, reason))
        assert self.hold.wait(TIMEOUT_S)
        stream.connection.close()


class Bench:
    """A receiver, its owner, and streams to a master."""

    def __init__(self, master: FakeMaster) -> None:
        self.owner = Owner()
        self.receiver = Receiver(self.owner, INTERVAL_S)
        self.receiver.start()
        self.streams: list[Stream] = []
        self.finished = False
        self._master = master

    def stream(self) -> tuple[Stream, FakePeer]:
        """One more connection that nobody listens to yet."""
        with ThreadPoolExecutor() as caller:
            calling = caller.submit(blocking.connect, self._master.address, "secret", HELLO)
            peer = self._master.accept()
            stream = Stream(len(self.streams), calling.result(TIMEOUT_S))
        self.streams.append(stream)
        return stream, peer

    def listen(self) -> tuple[Stream, FakePeer]:
        """One more connection."""
        stream, peer = self.stream()
        self.receiver.add(stream)
        return stream, peer

    def close(self) -> None:
        self.owner.hold.set()
        for stream in self.streams:
            stream.close("the test is over")
        if not self.finished:
            self.receiver.finish()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with FakeMaster() as master, contextlib.closing(Bench(master)) as made:
        yield made


def test_one_thread_receives_for_all(bench: Bench) -> None:
    peers = [bench.listen()[1] for _ in range(5)]
    for number, peer in enumerate(peers, start=1):
        peer.send(assign(number))
    got = {bench.owner.messages.get(timeout=TIMEOUT_S) for _ in peers}
    assert got == {assign(number) for number in range(1, 6)}
    assert len(bench.owner.threads) == 1


def test_what_came_with_the_handshake_is_not_forgotten(bench: Bench) -> None:
    stream, peer = bench.stream()
    peer.send(assign(7))
    # The bytes lie in the connection, and nothing more will wake who waits for the socket.
    wait_until(lambda: stream.connection._fill(0.0), TIMEOUT_S, "the message")
    bench.receiver.add(stream)
    assert bench.owner.messages.get(timeout=TIMEOUT_S) == assign(7)


def test_who_dwells_on_an_end_does_not_hold_up_the_rest(bench: Bench) -> None:
    _, ending = bench.listen()
    _, lively = bench.listen()
    bench.owner.hold.clear()
    ending.close()
    assert bench.owner.ends.get(timeout=TIMEOUT_S)[0] == 0
    lively.send(assign(1))
    assert bench.owner.messages.get(timeout=TIMEOUT_S) == assign(1)


def test_silence_is_counted_from_the_last_piece_however_small(bench: Bench) -> None:
    stream, peer = bench.listen()
    peer.answers_heartbeats = False
    # Long enough that nobody who looks now and then can miss that it was ended.
    wait_until(lambda: stream.silence_s >= 20 * INTERVAL_S, TIMEOUT_S, "silence")
    data = peer._session.send(assign(1))
    peer._sock.sendall(data[:3])
    wait_until(lambda: stream.silence_s < 18 * INTERVAL_S, TIMEOUT_S, "three bytes to be noticed")
    wait_until(lambda: stream.silence_s >= 20 * INTERVAL_S, TIMEOUT_S, "silence again")
    peer._sock.sendall(data[3:])
    assert bench.owner.messages.get(timeout=TIMEOUT_S) == assign(1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_of_the_owner_ends_every_stream(bench: Bench) -> None:
    _, first = bench.listen()
    bench.listen()
    bench.owner.fails = True
    first.send(assign(1))
    ends = {bench.owner.ends.get(timeout=TIMEOUT_S) for _ in range(2)}
    assert ends == {(0, BUG), (1, BUG)}


def test_finish_waits_for_every_end_and_takes_no_more(bench: Bench) -> None:
    stream, _ = bench.listen()
    late, _ = bench.stream()
    bench.owner.hold.clear()
    finishing = threading.Thread(target=bench.receiver.finish)
    bench.finished = True
    finishing.start()
    stream.close("over")
    assert bench.owner.ends.get(timeout=TIMEOUT_S) == (0, "over")
    assert finishing.is_alive(), "its end is still being dealt with"
    bench.receiver.add(late)
    assert not late.connection.is_open
    bench.owner.hold.set()
    finishing.join(TIMEOUT_S)
    assert not finishing.is_alive()
