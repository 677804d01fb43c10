"""Dispatch: images from memory, or read together with those that the queue holds next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from master.core.dispatch import Dispatch
from master.core.window import AHEAD_JOBS_MAX, Window
from master.scheduler.effects import Grant, Revoke
from master.scheduler.events import Event, ResultArrived
from wire.errors import EnvironmentFault
from wire.messages import Assign, Cancel, Message


class Disk:
    """Images by job; remembers each read."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []
        self.broken: set[int] = set()
        self.removed: set[int] = set()

    def images(self, jobs: list[int]) -> dict[int, tuple[str, bytes] | EnvironmentFault]:
        self.reads.append(list(jobs))
        fault = EnvironmentFault("image_corrupt", "other bytes")
        return {
            job: fault if job in self.broken else (f"{job}.jpg", b"%d" % job)
            for job in jobs
            if job not in self.removed
        }


class Session:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message, grant: Grant | None = None) -> None:
        assert (grant is not None) == isinstance(message, Assign)
        self.sent.append(message)


class Desk:
    """A dispatch with a disk, one worker `w` and a queue that a test sets."""

    def __init__(self, window_bytes: int = 10_000) -> None:
        self.disk = Disk()
        self.session = Session()
        self.window = Window(window_bytes)
        self.queue: list[int] = []
        self.fed: list[Event] = []
        self.pool = ThreadPoolExecutor(1)
        self.dispatch = Dispatch(
            self.disk,  # type: ignore[arg-type]
            self.window,
            self.pool,
            {"w": self.session},  # type: ignore[dict-item]
            self.fed.append,
            lambda: self.queue,
            lambda job: 3,
        )

    def grant(self, job: int, worker: str = "w") -> None:
        self.dispatch.grant(Grant(worker, job, 100 + job, 1, None, False, False))

    async def settle(self) -> None:
        """Let the turn end, the pool finish, and its answer be handled."""
        for _ in range(3):
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(self.pool, int)
            await asyncio.sleep(0)

    @property
    def assigned(self) -> list[str]:
        return [message.job for message in self.session.sent if isinstance(message, Assign)]


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_misses_of_one_turn_and_the_next_jobs_are_one_read() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.queue = list(range(10, 15))
        for job in (1, 2, 3):
            desk.grant(job)
        await desk.settle()
        assert desk.disk.reads == [[1, 2, 3, 10, 11, 12, 13, 14]]
        assert desk.assigned == ["j1", "j2", "j3"]
        for job in desk.queue:
            desk.grant(job)
        assert desk.assigned[3:] == ["j10", "j11", "j12", "j13", "j14"]
        assert len(desk.disk.reads) == 1

    run(scenario)


def test_a_job_that_is_on_its_way_is_not_read_twice() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.queue = [2]
        desk.grant(1)
        await asyncio.sleep(0)  # the read is asked for
        desk.grant(2)
        await desk.settle()
        assert sorted(job for read in desk.disk.reads for job in read) == [1, 2]
        assert desk.assigned == ["j1", "j2"]

    run(scenario)


def test_reading_ahead_is_bounded_by_count_and_by_room() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.queue = list(range(10, 10 + 2 * AHEAD_JOBS_MAX))
        desk.grant(1)
        await desk.settle()
        assert len(desk.disk.reads[0]) == 1 + AHEAD_JOBS_MAX
        small = Desk(window_bytes=7)
        small.queue = [10, 11, 12]
        small.grant(1)
        await small.settle()
        assert small.disk.reads == [[1, 10, 11]]

    run(scenario)


def test_a_revoked_lease_is_not_sent_and_the_worker_hears_nothing() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.grant(1)
        desk.dispatch.revoke(Revoke("w", 1, 101, "why"))
        await desk.settle()
        assert desk.session.sent == []
        desk.dispatch.revoke(Revoke("w", 1, 101, "why"))
        assert isinstance(desk.session.sent[0], Cancel)

    run(scenario)


def test_an_image_that_can_not_be_read_fails_its_job_and_no_other() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.disk.broken = {2}
        desk.disk.removed = {3}
        for job in (1, 2, 3):
            desk.grant(job)
        await desk.settle()
        assert desk.assigned == ["j1"]
        codes = [(e.job, e.fault_code) for e in desk.fed if isinstance(e, ResultArrived)]
        assert codes == [(2, "image_unreadable"), (3, "image_unreadable")]

    run(scenario)
