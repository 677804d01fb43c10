"""A master in the test's own process: real sockets, real frames, no scheduler.

The test plays the master's part by hand: it accepts a worker, sends what it
likes and waits for what should come. Heartbeats are answered and weights are
served by themselves, unless the test says otherwise.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import TypeVar

from wire import messages as m
from wire.errors import PeerFault
from wire.handshake import VERSIONS, Admission, ServerHandshake
from wire.session import Session

Kind = TypeVar("Kind", bound=m.Message)
TIMEOUT_S = 30.0
_CLOSED = None


class FakePeer:
    """One worker's connection, past its handshake. A thread reads it into a queue."""

    def __init__(self, sock: socket.socket, session: Session, master: FakeMaster) -> None:
        assert session.hello is not None
        self.hello: m.Hello = session.hello
        self.heartbeats: list[m.Heartbeat] = []
        self.chunks_left: int | None = None
        self.answers_heartbeats = True
        self._sock = sock
        self._session = session
        self._master = master
        self._lock = threading.Lock()
        self._inbox: queue.SimpleQueue[m.Message | None] = queue.SimpleQueue()
        self._beat = threading.Condition()
        threading.Thread(target=self._read, name="fake-peer", daemon=True).start()

    def send(self, *messages: m.Message) -> None:
        """Send messages in one write."""
        data = b"".join(self._session.send(message) for message in messages)
        with self._lock:
            self._sock.sendall(data)

    def receive(self, timeout_s: float = TIMEOUT_S) -> m.Message | None:
        """The next message that isn't a heartbeat or a request for weights; None at the end."""
        try:
            return self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"the worker sent nothing for {timeout_s} s") from None

    def expect(self, kind: type[Kind], timeout_s: float = TIMEOUT_S) -> Kind:
        """The next message, which has to be of this kind."""
        message = self.receive(timeout_s)
        assert isinstance(message, kind), f"expected {kind.__name__}, got {message}"
        return message

    def results(self, count: int, timeout_s: float = TIMEOUT_S) -> dict[str, m.Result]:
        """The next `count` results by job, accepting each; `Started` is passed over."""
        found: dict[str, m.Result] = {}
        deadline_s = time.monotonic() + timeout_s
        while len(found) < count:
            message = self.receive(max(0.0, deadline_s - time.monotonic()))
            if isinstance(message, m.Started):
                continue
            assert isinstance(message, m.Result), f"expected a result, got {message}"
            found[message.job] = message
            self.send(m.Accepted(job=message.job, token=message.token))
        return found

    def wait_heartbeats(self, count: int, timeout_s: float = TIMEOUT_S) -> list[m.Heartbeat]:
        """Wait until so many heartbeats came in all."""
        with self._beat:
            done = self._beat.wait_for(lambda: len(self.heartbeats) >= count, timeout_s)
        assert done, f"{len(self.heartbeats)} heartbeats in {timeout_s} s, expected {count}"
        return list(self.heartbeats)

    def expect_end(self, timeout_s: float = TIMEOUT_S) -> None:
        """The connection ends, with nothing more before that."""
        message = self.receive(timeout_s)
        assert message is _CLOSED, f"expected the end, got {message}"

    def close(self) -> None:
        """Cut the connection."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, PeerFault):
            while data := self._sock.recv(65536):
                for message in self._session.receive(data):
                    self._sort(message)
        self._inbox.put(_CLOSED)

    def _sort(self, message: m.Message) -> None:
        if isinstance(message, m.Heartbeat):
            with self._beat:
                self.heartbeats.append(message)
                self._beat.notify_all()
            if self.answers_heartbeats:
                self.send(m.HeartbeatAck(seq=message.seq))
        elif isinstance(message, m.FetchWeights) and self._master.weights is not None:
            self._serve_chunk(message, self._master.weights)
        else:
            self._inbox.put(message)
            if isinstance(message, m.Goodbye):
                self.close()

    def _serve_chunk(self, wanted: m.FetchWeights, path: Path) -> None:
        if self.chunks_left is not None:
            self.chunks_left -= 1
            if self.chunks_left < 0:
                self.close()
                return
        self._master.offsets.append(wanted.offset)
        data = path.read_bytes()
        self.send(
            m.WeightsChunk(
                sha256=wanted.sha256,
                offset=wanted.offset,
                size_bytes=len(data),
                data=data[wanted.offset : wanted.offset + wanted.length],
            )
        )


class FakeMaster:
    """Listens on a free port of the loopback. `weights` is the file to serve, if any."""

    def __init__(
        self,
        *,
        token: str | None = "secret",
        weights: Path | None = None,
        heartbeat_interval_s: float = 0.1,
        lease_ttl_s: float = 10.0,
    ) -> None:
        self.token = token
        self.weights = weights
        self.offsets: list[int] = []
        self.rejection: m.Reject | None = None
        self._admission = Admission("w1", heartbeat_interval_s, lease_ttl_s)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: list[FakePeer] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        """What to give to `worker join`."""
        return f"127.0.0.1:{self.port}"

    def accept(self, timeout_s: float = TIMEOUT_S) -> FakePeer:
        """The next worker that passes the handshake; ones that fail it are passed over."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._listener.settimeout(max(0.001, deadline_s - time.monotonic()))
            sock, _ = self._listener.accept()
            sock.settimeout(timeout_s)
            session = self._shake_hands(sock)
            if session is not None:
                sock.settimeout(None)
                self._peers.append(FakePeer(sock, session, self))
                return self._peers[-1]
            sock.close()

    def reject_one(self, timeout_s: float = TIMEOUT_S) -> None:
        """Answer the next worker and expect the handshake to fail."""
        self._listener.settimeout(timeout_s)
        sock, _ = self._listener.accept()
        sock.settimeout(timeout_s)
        with sock:
            assert self._shake_hands(sock) is None

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._listener.close()
        for peer in self._peers:
            peer.close()

    def _shake_hands(self, sock: socket.socket) -> Session | None:
        handshake = ServerHandshake(
            self.token, VERSIONS, secrets.token_bytes, lambda hello: self._admit()
        )
        session = Session(handshake)
        while not session.is_open:
            data = sock.recv(65536)
            if not data:
                return None
            session.receive(data)
            for answer in session.data_to_send():
                sock.sendall(answer)
            if session.is_rejected:
                return None
        return session

    def _admit(self) -> Admission | m.Reject:
        return self.rejection or self._admission

    def __enter__(self) -> FakeMaster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
