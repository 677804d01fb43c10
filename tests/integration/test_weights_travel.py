"""Ten empty workers fetch the weights at once; dispatch and heartbeats go on meanwhile.

The ten speak the protocol over real sockets but load no model: what is under test
is the master, and ten copies of torch would take the processors away from it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from tests.fakes.cluster import Cluster
from tests.shared import REPOSITORY, make_jpeg, wait_until
from wire import messages as m
from wire.blocking import BlockingConnection, connect
from wire.card import Card

pytestmark = pytest.mark.integration

NEWCOMERS = 10
SLICE_BYTES = 2**20
# One round is over in under a second on loopback: too short to watch dispatch in.
ROUNDS = 5
BEAT_EVERY_S = 0.2
# Half of what makes a worker suspect: anything near it would be a stall.
STALL_S = 1.0


@dataclass
class Fetched:
    """What one newcomer saw: the digest of what came, the slowest echo of a heartbeat."""

    sha256: str
    slowest_echo_s: float


def test_ten_join_at_once_and_nobody_waits(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=0, model="resnet50")
    with _stranger(lookout), lookout.client() as http, ThreadPoolExecutor(NEWCOMERS) as pool:
        wait_until(lambda: len(lookout.ready_workers()) == 1, 30, "the stranger to be ready")
        together = threading.Barrier(NEWCOMERS)
        fetches = [pool.submit(_fetch, lookout, n, together) for n in range(NEWCOMERS)]
        round_trips = []
        while not all(fetch.done() for fetch in fetches):
            round_trips.append(_classify(http, len(round_trips)))
        results = [fetch.result() for fetch in fetches]
        card = http.get("/model").json()
    assert {one.sha256 for one in results} == {card["sha256"]}
    assert len(round_trips) >= 10, "the downloads ended before dispatch was watched"
    assert max(round_trips) < STALL_S, sorted(round_trips)[-5:]
    assert max(one.slowest_echo_s for one in results) < STALL_S, results
    assert lookout.core is not None
    assert "worker_liveness" not in lookout.core.log(), "somebody was suspected"


def _fetch(lookout: Cluster, number: int, together: threading.Barrier) -> Fetched:
    """Join, wait for the others, fetch the whole file slice by slice, again and again, leave."""
    hello = m.Hello(
        versions=[m.VERSION], role="worker", name=f"new{number}", incarnation="1", slots=1
    )
    with connect(lookout.core_address, lookout.token, hello) as connection:
        card = _model(connection)
        together.wait(30)
        echoes = [0.0]
        digests = {_download(connection, card, echoes) for _ in range(ROUNDS)}
        connection.send(m.Goodbye(reason="only came for the weights"))
    (digest,) = digests
    return Fetched(sha256=digest, slowest_echo_s=max(echoes))


def _download(connection: BlockingConnection, card: Card, echoes: list[float]) -> str:
    digest, left = hashlib.sha256(), card.size_bytes
    sent: dict[int, float] = {}
    while left:
        if not sent or time.monotonic() - max(sent.values()) > BEAT_EVERY_S:
            seq = len(echoes) + len(sent)
            sent[seq] = time.monotonic()
            connection.send(m.Heartbeat(seq=seq, progress=0, held=0, executing=0))
        offset = card.size_bytes - left
        length = min(SLICE_BYTES, left)
        connection.send(m.FetchWeights(sha256=card.sha256, offset=offset, length=length))
        data = _slice(connection, sent, echoes)
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def _model(connection: BlockingConnection) -> Card:
    while not isinstance(message := connection.receive(30), m.Model):
        assert message is not None
    return message.card


def _slice(connection: BlockingConnection, sent: dict[int, float], echoes: list[float]) -> bytes:
    while True:
        message = connection.receive(30)
        if isinstance(message, m.HeartbeatAck):
            if (at_s := sent.pop(message.seq, None)) is not None:
                echoes.append(time.monotonic() - at_s)
        elif isinstance(message, m.WeightsChunk):
            return message.data
        assert message is not None, "no slice of the weights within 30 s"


def _classify(http: httpx.Client, number: int) -> float:
    """Seconds from upload to result of one image."""
    started_s = time.monotonic()
    answer = http.post(
        "/jobs",
        content=make_jpeg(number, (64, 64)),
        headers={"Content-Type": "image/jpeg", "Prefer": "wait=30"},
    )
    assert answer.json()["jobs"][0]["state"] == "succeeded", answer.text
    return time.monotonic() - started_s


@contextmanager
def _stranger(lookout: Cluster) -> Iterator[None]:
    """The worker of `wire/PROTOCOL.md`, which answers at once."""
    host, port = lookout.core_address.rsplit(":", 1)
    script = str(REPOSITORY / "tests/fakes/stranger_worker.py")
    stranger = subprocess.Popen(
        [sys.executable, script, host, port, lookout.token], start_new_session=True
    )
    try:
        yield
    finally:
        stranger.kill()
        stranger.wait()
