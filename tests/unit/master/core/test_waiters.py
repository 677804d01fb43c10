"""Requests that wait for jobs."""

from __future__ import annotations

import asyncio

from master.core.waiters import Waiters


def test_done_once_when_the_last_job_ends() -> None:
    async def scenario() -> list[str]:
        waiters = Waiters(asyncio.get_running_loop(), waiters_max=10)
        said: list[str] = []
        waiters.wait({1, 2}, 60.0, lambda: said.append("done"))
        waiters.ended(1)
        assert said == []
        waiters.ended(2)
        waiters.ended(2)
        assert waiters.waiting == 0
        return said

    assert asyncio.run(scenario()) == ["done"]


def test_time_up() -> None:
    async def scenario() -> int:
        waiters = Waiters(asyncio.get_running_loop(), waiters_max=10)
        over = asyncio.Event()
        waiters.wait({1}, 0.01, over.set)
        await asyncio.wait_for(over.wait(), 5)
        return waiters.waiting + len(waiters._by_job)

    assert asyncio.run(scenario()) == 0


def test_nothing_to_wait_for_and_too_many_waiting_end_at_once() -> None:
    async def scenario() -> list[str]:
        waiters = Waiters(asyncio.get_running_loop(), waiters_max=1)
        said: list[str] = []
        waiters.wait(set(), 60.0, lambda: said.append("none open"))
        kept = waiters.wait({1}, 60.0, lambda: said.append("never"))
        waiters.wait({2}, 60.0, lambda: said.append("one too many"))
        waiters.forget(kept)
        assert waiters.waiting == 0
        waiters.ended(1)
        return said

    assert asyncio.run(scenario()) == ["none open", "one too many"]
