"""The clock over decoding threads. Threads are real, time is literal."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from wire.errors import LocalFault
from worker.decode_pool import DecodePool, PoolConfig, RestartClock

TIMEOUT_S = 5.0


class Bench:
    """A pool of one thread whose work blocks until the test lets each item go."""

    def __init__(self, threads: int = 1, queue_max: int = 8) -> None:
        self.now = 0.0
        self.begun: queue.Queue[str] = queue.Queue()
        self.delivered: queue.Queue[str] = queue.Queue()
        self.late: list[str] = []
        self.wedged: list[str] = []
        self.gates = {name: threading.Event() for name in "abcdef"}
        self.restart: dict[str, RestartClock] = {}
        self.pool: DecodePool[str] = DecodePool(
            PoolConfig(threads, queue_max, timeout_s=1000.0, wedged_s=3000.0),
            self.work,
            self.late.append,
            self.wedged.append,
            lambda: self.now,
        )
        self.pool.start()

    def work(self, item: str, restart_clock: RestartClock) -> Callable[[], None]:
        self.restart[item] = restart_clock
        self.begun.put(item)
        assert self.gates[item].wait(TIMEOUT_S)
        return partial(self.delivered.put, item)

    def begin(self, item: str) -> None:
        self.pool.submit(item)
        assert self.begun.get(timeout=TIMEOUT_S) == item


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    yield one
    for gate in one.gates.values():
        gate.set()
    one.pool.close()


def test_hands_on_what_is_done_in_time(bench: Bench) -> None:
    bench.begin("a")
    bench.pool.check(1000.0)
    bench.gates["a"].set()
    assert bench.delivered.get(timeout=TIMEOUT_S) == "a"
    assert bench.late == []


def test_gives_up_what_takes_too_long_and_keeps_its_width(bench: Bench) -> None:
    bench.begin("a")
    bench.pool.check(1000.1)
    assert bench.late == ["a"]
    bench.begin("b")
    bench.gates["b"].set()
    assert bench.delivered.get(timeout=TIMEOUT_S) == "b"


def test_what_was_given_up_is_never_handed_on(bench: Bench) -> None:
    bench.begin("a")
    bench.pool.check(1000.1)
    bench.pool.check(2000.0)
    bench.gates["a"].set()
    bench.begin("b")
    bench.gates["b"].set()
    assert bench.delivered.get(timeout=TIMEOUT_S) == "b"
    assert bench.late == ["a"], "given up once"
    assert bench.delivered.empty()


def test_asks_once_for_a_fresh_process_when_a_thread_never_returns(bench: Bench) -> None:
    bench.begin("a")
    bench.pool.check(1000.1)
    bench.pool.check(2999.0)
    assert bench.wedged == []
    bench.pool.check(3000.1)
    bench.pool.check(9000.0)
    assert bench.wedged == ["a decoder has been stuck for 3000 s"]


def test_waiting_for_a_turn_is_not_decoding(bench: Bench) -> None:
    bench.begin("a")
    bench.now = 900.0
    bench.restart["a"]()
    bench.pool.check(1800.0)
    assert bench.late == []
    bench.pool.check(1901.0)
    assert bench.late == ["a"]


def test_its_queue_is_bounded() -> None:
    one = Bench(queue_max=2)
    one.begin("a")
    one.pool.submit("b")
    one.pool.submit("c")
    with pytest.raises(LocalFault, match="more than 2 images"):
        one.pool.submit("d")
    for gate in one.gates.values():
        gate.set()
    one.pool.close()
