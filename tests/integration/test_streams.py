"""One worker over several connections: each may freeze or break, and nothing is lost with it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from tests.fakes.cluster import Cluster
from tests.fakes.relay import Relay
from tests.shared import make_jpeg, wait_until
from wire import blocking
from wire import messages as m
from wire.errors import Rejected

pytestmark = pytest.mark.integration
NULL = ("--engine", "null", "--enable-fault-hooks")
IMAGE_BYTES = 100_000
HELLO = m.Hello(versions=[1], role="worker", name="hand", incarnation="h1", slots=1, streams_max=4)


class Striped:
    """A cluster whose one worker joins through a relay."""

    def __init__(self, lookout: Cluster, relay: Relay) -> None:
        self.lookout = lookout
        self.relay = relay

    def worker(self) -> dict[str, Any]:
        with self.lookout.client() as http:
            workers = http.get("/workers").json()["workers"]
        found: dict[str, Any] = next(w for w in workers if w["name"] == "w1")
        return found

    def join(self, streams: int) -> None:
        token = ("--token-file", str(self.lookout.token_file))
        flags = (*token, "--name", "w1", "--streams", str(streams), *NULL)
        self.lookout.join(self.relay.address, *flags, name="w1")
        self.lookout.wait_ready(1)
        wait_until(lambda: self.worker()["streams"] == streams, 20, "all streams")

    def submit(self, images: int) -> str:
        image = make_jpeg(1, (64, 64)).ljust(IMAGE_BYTES, b"\0")
        files = [("image", (f"{n}.jpg", image, "image/jpeg")) for n in range(images)]
        with self.lookout.client() as http:
            return str(http.post("/jobs", files=files).json()["submission"])

    def wait_succeeded(self, submission: str, images: int) -> None:
        def done() -> bool:
            with self.lookout.client() as http:
                counts = http.get(f"/submissions/{submission}").json()["counts"]
            return bool(counts.get("succeeded", 0) == images)

        wait_until(done, 40, "all jobs to succeed")

    def counter(self, name: str) -> int:
        with self.lookout.client() as http:
            return int(http.get("/stats").json()["counters"].get(name, 0))

    def log(self) -> str:
        assert self.lookout.core is not None
        return self.lookout.core.log()


@pytest.fixture
def striped(cluster: Callable[..., Cluster]) -> Iterator[Striped]:
    lookout = cluster(workers=0)
    with Relay(int(lookout.core_address.rpartition(":")[2])) as relay:
        yield Striped(lookout, relay)


def test_a_frozen_stream_is_replaced_and_its_jobs_arrive(striped: Striped) -> None:
    striped.join(4)
    frozen = striped.relay.connections[2]
    frozen.freeze()
    submission = striped.submit(60)
    striped.wait_succeeded(submission, 60)
    # Which number it bears is open: streams are opened at once, and join in any order.
    wait_until(lambda: re.search(r"replaces=\[\d+\]", striped.log()), 20, "the replacement")
    wait_until(lambda: striped.worker()["streams"] == 4, 20, "as many streams as before")
    assert striped.counter("died") == striped.counter("lost") == 0
    assert striped.log().count(" worker_joined ") == 1
    others = [c.bytes_down for c in striped.relay.connections if c is not frozen]
    assert min(others[:3]) > 5 * IMAGE_BYTES, "images went over every stream"


def test_the_first_stream_breaks_and_the_worker_stays(striped: Striped) -> None:
    striped.join(3)
    submission = striped.submit(60)
    striped.relay.connections[0].cut()
    striped.wait_succeeded(submission, 60)
    wait_until(lambda: striped.worker()["streams"] == 3, 20, "as many streams as before")
    assert striped.counter("died") == striped.counter("lost") == 0
    assert striped.log().count(" worker_joined ") == 1


def test_the_last_stream_takes_the_worker_along_and_it_comes_back(striped: Striped) -> None:
    striped.join(2)
    for connection in striped.relay.connections[:2]:
        connection.cut()
    wait_until(lambda: striped.log().count(" worker_joined ") == 2, 20, "the worker to be back")
    striped.wait_succeeded(striped.submit(5), 5)


def test_a_single_frozen_connection_is_replaced_without_a_death(striped: Striped) -> None:
    """`auto` on a good link has one stream, and may still open another in its place."""
    token = ("--token-file", str(striped.lookout.token_file))
    striped.lookout.join(striped.relay.address, *token, "--name", "w1", *NULL, name="w1")
    striped.lookout.wait_ready(1)
    assert striped.worker()["streams"] == 1
    # A connection that is not new: the detector has ten seconds of patience at first.
    striped.relay.connections[0].freeze()
    wait_until(lambda: "replaces=[0]" in striped.log(), 20, "the replacement")
    striped.wait_succeeded(striped.submit(5), 5)
    assert striped.log().count(" worker_joined ") == 1
    worker = striped.lookout.workers["w1"]
    worker.term()
    wait_until(lambda: not worker.alive, 5, "its end: it waits for nobody on the frozen connection")


def test_a_stream_needs_the_ticket_of_the_living_worker(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=0, web=False)

    def call(hello: m.Hello, ticket: bytes = b"") -> blocking.BlockingConnection:
        return blocking.connect(lookout.core_address, lookout.token, hello, ticket=ticket)

    with call(HELLO) as first:
        ticket = first.welcome.ticket
        assert len(ticket) == 32
        stream = msgspec.structs.replace(HELLO, stream=1)
        with pytest.raises(Rejected, match="bad_ticket"):
            call(stream, secrets.token_bytes(32))
        with pytest.raises(Rejected, match="session_unknown"):
            call(msgspec.structs.replace(stream, incarnation="h2"), ticket)
        with call(stream, ticket) as second:
            assert second.welcome.ticket == b""
            second.send(m.Heartbeat(seq=1, progress=0, held=0, executing=0))
            answer = second.receive(timeout_s=10)
            assert isinstance(answer, m.HeartbeatAck), "no Model comes over a further stream"
    plain = msgspec.structs.replace(HELLO, name="plain", streams_max=1)
    with call(plain) as single:
        assert single.welcome.ticket == b""
