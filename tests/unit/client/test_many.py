"""Many images: bounded work, order, early ends, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import AsyncLookout, BadInput, Data, Limits, Lookout, Outcome, Unreachable
from tests.unit.client import server as acts
from tests.unit.client.conftest import Watch
from tests.unit.client.server import Server


class Counted:
    """An endless or long iterable that knows how far it was read."""

    def __init__(self, count: int) -> None:
        self.read = 0
        self._count = count

    def __iter__(self) -> Iterator[Data]:
        for number in range(self._count):
            self.read += 1
            yield Data(b"image %d" % number, f"{number}.png")


def test_every_image_has_one_outcome(server: Server) -> None:
    with Lookout(server.url) as lookout:
        outcomes = list(lookout.classify(Counted(300)))
    assert sorted(outcome.index for outcome in outcomes) == list(range(300))
    assert {o.image for o in outcomes} == {f"{number}.png" for number in range(300)}
    assert all(outcome.ok for outcome in outcomes)
    assert len(server.table.ids) == 300
    assert len({seen.key for seen in server.seen}) == 300


def test_no_more_than_the_window_is_read_ahead(server: Server) -> None:
    images = Counted(10**9)
    limits = Limits(window=3)
    with Lookout(server.url, limits=limits) as lookout:
        results = lookout.classify(images, concurrency=4)
        for taken in range(1, 50):
            next(results)
            assert images.read <= taken + 4 * 3 + 1
        results.close()
    assert len(server.seen) <= images.read < 100


def test_no_more_than_the_concurrency_is_under_way(server: Server) -> None:
    gate = threading.Event()
    full = threading.Semaphore(0)

    def held(handler: acts.Handler) -> None:
        full.release()
        gate.wait(10)
        acts.serve(handler)

    server.plan.extend([held] * 30)
    with Lookout(server.url) as lookout:
        results = lookout.classify(Counted(30), concurrency=5)
        for _ in range(5):
            assert full.acquire(timeout=10)
        assert not full.acquire(timeout=0.1), "a sixth image is under way"
        gate.set()
        assert len(list(results)) == 30


def test_results_come_as_they_end_or_in_order(server: Server) -> None:
    gate = threading.Event()

    def held(handler: acts.Handler) -> None:
        gate.wait(10)
        acts.serve(handler)

    with Lookout(server.url) as lookout:
        server.plan.append(held)
        results = lookout.classify(Counted(5), concurrency=1 + 1)
        indexes = [next(results).index for _ in range(4)]
        gate.set()
        indexes += [outcome.index for outcome in results]
        assert sorted(indexes) == list(range(5))
        gate.clear()
        held_first = [held]
        server.plan.extend(held_first)
        ended: list[int] = []

        def note(outcome: Outcome) -> None:
            ended.append(outcome.index)
            if len(ended) == 4:
                gate.set()

        results = lookout.classify(Counted(5), concurrency=2, in_order=True, on_result=note)
        assert [outcome.index for outcome in results] == list(range(5))
        assert ended != list(range(5))


def test_a_failed_image_does_not_end_the_others(server: Server) -> None:
    images = [b"a", b"", "/nowhere/x.jpg", b"b"]
    with Lookout(server.url) as lookout:
        outcomes = list(lookout.classify(images, in_order=True))
    assert [o.error.code if o.error else "" for o in outcomes] == ["", "empty", "unreadable", ""]
    assert [outcome.tries for outcome in outcomes] == [1, 0, 0, 1]


def test_stop_leaves_what_has_ended(server: Server) -> None:
    gate = threading.Event()
    ended = threading.Event()

    def held(handler: acts.Handler) -> None:
        gate.wait(10)

    server.plan.append(held)
    try:
        with Lookout(server.url) as lookout:
            results = lookout.classify(
                Counted(3), concurrency=2, in_order=True, on_result=lambda o: _set(ended, o, 2)
            )
            assert ended.wait(10)
            results.stop()
            # Of the first two, the one whose request came first is held.
            assert [outcome.index for outcome in results] in ([1, 2], [0, 2])
    finally:
        gate.set()


def _set(event: threading.Event, outcome: Outcome, index: int) -> None:
    if outcome.index == index:
        event.set()


def test_an_iterator_that_raises_ends_the_call_with_its_error(server: Server) -> None:
    def images() -> Iterator[bytes]:
        yield b"one"
        raise LookupError("the caller's own")

    with Lookout(server.url) as lookout:
        results = lookout.classify(images())
        assert next(results).ok
        with pytest.raises(LookupError, match="own"):
            next(results)
        with pytest.raises(TypeError, match="int is no image"):
            list(lookout.classify([7]))


def test_a_callback_that_raises_ends_the_call_with_its_error(server: Server) -> None:
    def fail(_: Outcome) -> None:
        raise LookupError("the caller's own")

    with Lookout(server.url) as lookout, pytest.raises(LookupError):
        list(lookout.classify(Counted(1000), on_result=fail))
    assert len(server.seen) < 1000


def test_leaving_early_ends_threads_and_connections(server: Server) -> None:
    before = set(threading.enumerate())
    lookout = Lookout(server.url)
    (thread,) = set(threading.enumerate()) - before
    for _ in lookout.classify(Counted(1000)):
        break
    lookout.close()
    lookout.close()
    assert not thread.is_alive()
    with pytest.raises(BadInput, match="closed"):
        lookout.classify(b"x")


def test_a_client_that_nobody_holds_ends_its_thread(server: Server) -> None:
    lookout = Lookout(server.url)
    thread = next(t for t in threading.enumerate() if t.name == "lookout-client")
    assert len(list(lookout.classify([b"x"]))) == 1
    del lookout
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("concurrency", [0, -1, 257])
def test_concurrency_has_limits(server: Server, concurrency: int) -> None:
    with Lookout(server.url) as lookout, pytest.raises(BadInput, match="1 to 256"):
        lookout.classify(b"x", concurrency=concurrency)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_is_a_time_to_come(server: Server, deadline_s: float) -> None:
    with Lookout(server.url) as lookout, pytest.raises(BadInput, match="above 0"):
        lookout.classify(b"x", deadline_s=deadline_s)


@pytest.mark.parametrize("url", ["", "host", "host:80", "ftp://host", "http://", "http://h/?x=1"])
def test_a_server_is_an_http_address(url: str) -> None:
    with pytest.raises(BadInput, match="http://HOST"):
        Lookout(url)


def test_the_address_may_hold_a_path_or_be_that_of_the_api(server: Server) -> None:
    for url in (server.url + "/", server.url + "/api/v1", server.url + "/api/v1/"):
        with Lookout(url) as lookout:
            assert lookout.url == server.url
            assert [outcome.ok for outcome in lookout.classify(b"x")] == [True]
    with Lookout(server.url + "/behind") as lookout:
        list(lookout.classify(b"x"))
    assert {seen.path for seen in server.seen} == {"/api/v1/jobs", "/behind/api/v1/jobs"}


def test_a_server_that_dies_ends_a_long_call_soon(watch: Watch) -> None:
    server = Server()
    images = Counted(100_000)
    with server, Lookout(server.url, clock=watch.clock) as lookout:
        results = lookout.classify(images, concurrency=4)
        next(results)
        server.plan.extend([acts.drop] * 100_000)
        with pytest.raises(Unreachable):
            for _ in results:
                pass
    assert images.read < 1_000


def test_a_loop_that_runs_already_is_no_hindrance(server: Server) -> None:
    async def notebook() -> list[bool]:
        with Lookout(server.url) as lookout:
            return [outcome.ok for outcome in lookout.classify(Counted(3))]

    assert asyncio.run(notebook()) == [True] * 3


def test_async_calls_share_a_client(server: Server) -> None:
    async def several() -> list[int]:
        async with AsyncLookout(server.url) as lookout:
            runs = [await lookout.classify(Counted(20)) for _ in range(3)]
            counts = [len([outcome async for outcome in run]) for run in runs]
            await lookout.classify(Counted(1000))  # nobody reads it: closing ends it
            return counts

    assert asyncio.run(several()) == [20] * 3


def test_a_folder_is_sent_only_as_far_as_results_are_read(server: Server, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"x")
    for number in range(1, 2_000):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "0.png")
    with Lookout(server.url) as lookout:
        results = lookout.classify(tmp_path, concurrency=2)
        assert next(results).ok
        results.close()
    assert len(server.seen) < 50
