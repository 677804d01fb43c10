"""Callbacks come on the loop, in order, after their writes."""

from __future__ import annotations

import asyncio
import threading

from master.core.durable import Durable
from master.store.write import Write


def test_callbacks_run_on_the_loop_in_order() -> None:
    async def scenario() -> tuple[list[int], set[int]]:
        durable = Durable(asyncio.get_running_loop())
        futures = [Write[int]() for _ in range(100)]
        order: list[int] = []
        threads: set[int] = set()

        def done(future: Write[int]) -> None:
            order.append(future.result())
            threads.add(threading.get_ident())

        for future in futures:
            durable.then(future, done)

        def write() -> None:
            for number, future in enumerate(futures):
                future.set_result(number)

        writer = threading.Thread(target=write)
        writer.start()
        await durable.idle()
        writer.join()
        return order, threads

    order, threads = asyncio.run(scenario())
    assert order == list(range(100))
    assert threads == {threading.get_ident()}


def test_idle_after_now_does_not_wait_for_later_writes() -> None:
    async def scenario() -> bool:
        durable = Durable(asyncio.get_running_loop())
        early, late = Write[int](), Write[int]()
        durable.then(early, lambda _: None)
        waiting = asyncio.create_task(durable.idle_after_now())
        await asyncio.sleep(0)
        durable.then(late, lambda _: None)
        assert not waiting.done()
        early.set_result(1)
        await asyncio.wait_for(waiting, 5)
        return late.done()

    assert asyncio.run(scenario()) is False
