"""Threads that decode, and a clock over each of them.

A thread can't be killed. An image that decodes for longer than `timeout_s` is
therefore given up: it is reported at once, its thread is written off, and
another takes its place, so that the pool keeps its width. A thread still at it
after `wedged_s` will hardly come back, and holds a core and memory: `on_wedged`
then asks for the whole process to be replaced (`worker.service` gives back what
is not begun, finishes what is, and executes itself anew). A decoder that never
lets go of the interpreter lock stops the heartbeat too; the master sees a dead
worker then, which is the truth.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from wire.errors import LocalFault

Item = TypeVar("Item")
RestartClock = Callable[[], None]
CHECKS_PER_TIMEOUT = 20


@dataclass(slots=True, eq=False)
class _Seat(Generic[Item]):
    """One thread's place: what it works on since when. Guarded by the pool's lock."""

    item: Item | None = None
    began_s: float = 0.0
    is_written_off: bool = False


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """`queue_max` items may wait; see the module about the two bounds on time."""

    threads: int
    queue_max: int
    timeout_s: float
    wedged_s: float


class DecodePool(Generic[Item]):
    """Calls `work(item, restart_clock)` on one of its threads, for each item put in.

    `work` must not raise and hands its result on by calling what it returns:
    that is left out for an item whose time ran out. `on_timeout(item)` and
    `on_wedged(reason)` are called from the thread that watches.
    """

    def __init__(
        self,
        config: PoolConfig,
        work: Callable[[Item, RestartClock], Callable[[], None]],
        on_timeout: Callable[[Item], None],
        on_wedged: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._work = work
        self._on_timeout = on_timeout
        self._on_wedged = on_wedged
        self._clock = clock
        self._queue: queue.Queue[Item | None] = queue.Queue(config.queue_max + config.threads)
        self._lock = threading.Lock()
        self._seats: list[_Seat[Item]] = []
        self._written_off: list[_Seat[Item]] = []
        self._is_wedged = False
        self._closed = threading.Event()

    def start(self) -> None:
        """Start the threads that decode and the one that watches."""
        for _ in range(self._config.threads):
            self._add_thread()
        threading.Thread(target=self._watch, name="decode-watch", daemon=True).start()

    def submit(self, item: Item) -> None:
        """Put an item in; never blocks. Raises `LocalFault` beyond `queue_max`."""
        if self._queue.qsize() >= self._config.queue_max:
            raise LocalFault(f"more than {self._config.queue_max} images wait to be decoded")
        self._queue.put_nowait(item)

    def close(self) -> None:
        """Let the threads end after what they are doing."""
        self._closed.set()
        for _ in range(self._config.threads):
            self._queue.put(None)

    def check(self, now: float) -> None:
        """Give up what took too long by `now`; the watching thread calls this."""
        late, wedged_s = self._collect(now)
        for item in late:
            self._add_thread()
            self._on_timeout(item)
        if wedged_s is not None:
            self._on_wedged(f"a decoder has been stuck for {wedged_s:.0f} s")

    def _collect(self, now: float) -> tuple[list[Item], float | None]:
        with self._lock:
            late = [seat for seat in self._seats if self._age(seat, now) > self._config.timeout_s]
            for seat in late:
                seat.is_written_off = True
                self._seats.remove(seat)
            self._written_off = [s for s in self._written_off if s.item is not None] + late
            oldest = max((self._age(seat, now) for seat in self._written_off), default=0.0)
            wedged = oldest > self._config.wedged_s and not self._is_wedged
            self._is_wedged |= wedged
            items = [seat.item for seat in late if seat.item is not None]
            return items, oldest if wedged else None

    def _age(self, seat: _Seat[Item], now: float) -> float:
        return now - seat.began_s if seat.item is not None else 0.0

    def _add_thread(self) -> None:
        seat: _Seat[Item] = _Seat()
        with self._lock:
            self._seats.append(seat)
        threading.Thread(target=self._run, args=(seat,), name="decode", daemon=True).start()

    def _run(self, seat: _Seat[Item]) -> None:
        while (item := self._queue.get()) is not None:
            self._occupy(seat, item)
            hand_on = self._work(item, lambda: self._restart(seat))
            with self._lock:
                seat.item = None
                if seat.is_written_off:
                    return
            hand_on()

    def _occupy(self, seat: _Seat[Item], item: Item) -> None:
        with self._lock:
            seat.item, seat.began_s = item, self._clock()

    def _restart(self, seat: _Seat[Item]) -> None:
        with self._lock:
            seat.began_s = self._clock()

    def _watch(self) -> None:
        interval_s = self._config.timeout_s / CHECKS_PER_TIMEOUT
        while not self._closed.wait(interval_s):
            self.check(self._clock())
