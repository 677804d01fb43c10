"""10^5 hostile frames against the pure session, and as many against a real server.

Whatever comes, the answer is a `PeerFault` with a code of the page, memory
stays under a stated bound, and good peers are served during and after it.
`LOOKOUT_FUZZ_SEED` changes the frames, `LOOKOUT_FUZZ_FRAMES` how many.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz.frames import random_stream
from tests.unit.wire import link
from wire import blocking, codec
from wire import messages as m
from wire.errors import PeerFault, Rejected
from wire.framing import HEADER_BYTES
from wire.session import Session

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(600)]

SEED: Final = int(os.environ.get("LOOKOUT_FUZZ_SEED", "20240607"))
FRAMES: Final = int(os.environ.get("LOOKOUT_FUZZ_FRAMES", "100000"))
FRAMES_PER_CONNECTION: Final = 8
"""That are judged before a fault ends it, in the mean; tests assert the sum."""
RSS_GROWTH_BYTES_MAX: Final = 32 * 2**20
"""Of the server, between the first tenth of the frames and the last: allocator noise."""
TEST_RSS_GROWTH_BYTES_MAX: Final = 64 * 2**20
"""Of the process that also makes the frames, and runs other tests."""
ANSWER_S_MAX: Final = 5.0
DRIPPERS: Final = 40
LOG_LINES_MAX: Final = 2000
CODES: Final = {
    "empty_frame",
    "frame_too_large",
    "not_msgpack",
    "bad_message",
    "unknown_type",
    "not_allowed",
}
HANDSHAKE_CODES: Final = {
    "version_unsupported",
    "bad_token",
    "master_unproved",
    "fault_reported",
    "truncated_frame",
    "handshake_incomplete",
}
REPOSITORY: Final = Path(__file__).resolve().parents[2]


def resident_bytes(pid: int) -> int:
    """Memory of a process that lies in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- the pure session ---------------------------------------------------------------------------


def fresh(rng: random.Random) -> tuple[Session, codec.Vocabulary]:
    """A session at a random point of its life, and what its peer may say there."""
    match rng.randrange(8):
        case 0:
            return link.server(), codec.HANDSHAKE_FROM_CLIENT
        case 1:
            return link.client(), codec.HANDSHAKE_FROM_MASTER
        case 2:
            one, _ = link.opened()
            return one, codec.FROM_MASTER["worker"]
        case 3:
            one, _ = link.opened(link.hello("web"))
            return one, codec.FROM_MASTER["web"]
        case 4:
            _, other = link.opened(link.hello("web"))
            return other, codec.FROM_ROLE["web"]
        case _:
            _, other = link.opened(frame_bytes_max=2**20)
            return other, codec.FROM_ROLE["worker"]


def feed(session: Session, stream: bytes, rng: random.Random) -> None:
    """Give a session a stream in random pieces until it ends or faults."""
    for piece in link.pieces(stream, [rng.randrange(len(stream) + 1) for _ in range(4)]):
        session.receive(piece)
        session.data_to_send()
        if session.is_rejected:
            break


def test_the_pure_session_answers_everything_with_a_typed_fault() -> None:
    rng = random.Random(SEED)
    faults: Counter[str] = Counter()
    judged = 0
    first_tenth_bytes = 0
    for i in range(FRAMES):
        if i == FRAMES // 10:
            first_tenth_bytes = resident_bytes(os.getpid())
        session, table = fresh(rng)
        stream = random_stream(rng, table, good_max=2, hostile_frames=1)
        before = session.frames_received
        try:
            feed(session, stream, rng)
        except Rejected as fault:
            # The code of a `Reject` is the master's to choose, here the fuzzer's.
            assert len(fault.code) <= 128
        except PeerFault as fault:
            faults[fault.code] += 1
        except BaseException:
            print(f"seed {SEED}, stream {i}: {stream.hex()}")
            raise
        judged += session.frames_received - before
    growth_bytes = resident_bytes(os.getpid()) - first_tenth_bytes
    print(f"judged {judged}, faults {dict(faults)}, grew {growth_bytes / 2**20:.1f} MiB")
    assert faults.keys() >= CODES, "the fuzzer does not reach every kind of fault"
    assert faults.keys() <= CODES | HANDSHAKE_CODES
    assert sum(faults.values()) > FRAMES // 2, "the hostile frames do no harm"
    assert growth_bytes < TEST_RSS_GROWTH_BYTES_MAX


# --- a real server ------------------------------------------------------------------------------


@dataclass
class Target:
    """The server process under attack."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    counted: dict[str, object] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def target(log: Path) -> Iterator[Target]:
    """A server process; at the end its own counts are in `counted`."""
    command = [sys.executable, "-m", "tests.fuzz.wire_server", link.TOKEN]
    pipe = subprocess.PIPE
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, text=True, cwd=REPOSITORY
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            it = Target(process, json.loads(process.stdout.readline())["port"], log)
            yield it
            process.stdin.close()
            it.counted = json.loads(process.stdout.readline())
            assert process.wait(20) == 0
        finally:
            process.kill()


def join_by_hand(sock: socket.socket, session: Session) -> None:
    """Pass the handshake on a bare socket, to send anything afterwards."""
    while True:
        for data in session.data_to_send():
            sock.sendall(data)
        if session.is_open:
            return
        session.receive(sock.recv(65536))


def attack(port: int, rng: random.Random) -> None:
    """One connection: perhaps join, send a hostile stream, hang up or wait for the verdict."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        table = codec.HANDSHAKE_FROM_CLIENT
        try:
            if rng.random() < 0.85:
                role: m.Role = rng.choice(("worker", "worker", "web"))
                join_by_hand(sock, link.client(who=link.hello(role)))
                table = codec.FROM_ROLE[role]
            sock.sendall(random_stream(rng, table, good_max=32, hostile_frames=3))
            # Hanging up with answers unread resets the connection: also a way to leave.
            if rng.random() < 0.9:
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        except ConnectionError:
            pass  # cut in the middle of our sending: what it is for


class GoodPeer(threading.Thread):
    """A worker that works all along, and notes how long the slowest answer took."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.answers = 0
        self.slowest_s = 0.0
        self.failure: Exception | None = None
        self._stop_asked = threading.Event()
        self._connection = blocking.connect(address, link.TOKEN, link.hello(name="good"))

    def run(self) -> None:
        """Ask until told to stop."""
        try:
            while not self._stop_asked.wait(0.01):
                self._ask()
        except Exception as error:  # raised again in `stop`
            self.failure = error
        finally:
            self._connection.close()

    def _ask(self) -> None:
        began_s = time.monotonic()
        seq = self.answers + 1
        self._connection.send(m.Heartbeat(seq=seq, progress=0, held=0, executing=0))
        answer = self._connection.receive(ANSWER_S_MAX)
        assert answer == m.HeartbeatAck(seq=seq), answer
        self.answers = seq
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    def stop(self) -> None:
        """End, and raise what went wrong."""
        self._stop_asked.set()
        self.join(20)
        if self.failure is not None:
            raise self.failure


def start_dripping(port: int) -> list[socket.socket]:
    """Peers that announce 64 MiB each and have sent next to nothing of it."""
    drippers = []
    for i in range(DRIPPERS):
        sock = socket.create_connection(("127.0.0.1", port), 10)
        join_by_hand(sock, link.client(who=link.hello("web", name=f"drip-{i}")))
        sock.sendall((64 * 2**20).to_bytes(HEADER_BYTES, "big") + b"drop")
        drippers.append(sock)
    return drippers


def test_a_real_server_stays_up_small_and_polite(tmp_path: Path) -> None:
    connections = FRAMES // FRAMES_PER_CONNECTION
    with target(tmp_path / "log") as it:
        good = GoodPeer(it.address)
        good.start()
        drippers = start_dripping(it.port)
        rng = random.Random(SEED + 1)
        first_tenth_bytes = 0
        try:
            for i in range(connections):
                if i == connections // 10:
                    first_tenth_bytes = resident_bytes(it.process.pid)
                attack(it.port, rng)
            growth_bytes = resident_bytes(it.process.pid) - first_tenth_bytes
        finally:
            good.stop()
            for sock in drippers:
                sock.close()
        with blocking.connect(it.address, link.TOKEN, link.hello(name="late")) as late:
            late.send(m.Heartbeat(seq=7, progress=0, held=0, executing=0))
            assert late.receive(ANSWER_S_MAX) == m.HeartbeatAck(seq=7)
    rejections, heard = it.counted["rejections"], it.counted["heard"]
    print(
        f"{connections} connections, heard {heard}, rejections {rejections}, "
        f"grew {growth_bytes / 2**20:.1f} MiB, {good.answers} good answers, "
        f"slowest {good.slowest_s * 1000:.0f} ms"
    )
    assert isinstance(rejections, dict)
    assert isinstance(heard, int)
    assert rejections.keys() >= CODES
    assert rejections.keys() <= CODES | HANDSHAKE_CODES, "a stranger chose a code"
    assert sum(rejections.values()) > connections // 2
    assert heard + sum(rejections.values()) >= FRAMES
    assert growth_bytes < RSS_GROWTH_BYTES_MAX
    assert good.answers > 20
    log = it.log.read_text()
    assert "Traceback" not in log
    assert 50 <= len(log.splitlines()) < LOG_LINES_MAX
