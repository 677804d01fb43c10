"""Carries faults out on a running cluster, and notes when each began and ended.

A killed process comes back after `restart_s`. A fault for a worker that is already
down is skipped and noted as such: what is dead can't be hung.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, Protocol

import numpy as np

from experiments.cluster import Cluster
from experiments.events import Happened
from experiments.scenario import Fault, FaultKind, Faults

# A slow worker runs for one part of each period and is stopped for the rest: a quarter speed.
SLOW_RUN_S: Final = 0.05
SLOW_STOP_S: Final = 0.15


class Cuts(Protocol):
    """Something that cuts a worker's link."""

    def cut(self, worker: int) -> None:
        """Nothing passes."""

    def heal(self, worker: int) -> None:
        """As before."""


class Injector:
    """Breaks one cluster; use from one event loop."""

    def __init__(
        self, cluster: Cluster, wanted: Faults, cuts: Cuts | None, rng: np.random.Generator
    ) -> None:
        self.happened: list[Happened] = []
        self.error: BaseException | None = None
        self._cluster = cluster
        self._wanted = wanted
        self._cuts = cuts
        self._rng = rng
        self._busy: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def schedule(self, faults: Sequence[Fault], began_s: float) -> None:
        """Carry these out, each at its time after `began_s`."""
        for fault in faults:
            self._start(self._at(fault, began_s))

    def assigned(self, worker: int) -> None:
        """A job went to this worker: kill it with the rate that was asked for."""
        if self._closing or self._rng.random() >= self._wanted.failure_rate:
            return
        if worker in self._busy or len(self._busy) >= self._wanted.dead_at_once:
            return
        self.crash(worker)

    def crash(self, worker: int) -> None:
        """Kill a worker now."""
        fault = Fault(at_s=0.0, kind=FaultKind.CRASH, worker=worker, for_s=0.0)
        self._start(self._carry_out(fault))

    async def close(self) -> None:
        """Begin nothing more; what was broken is whole again afterwards.

        Raises:
            ProcessFailed: a process did not come back.
        """
        self._closing = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.error is not None:
            raise self.error

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.error = self.error or task.exception()

    async def _at(self, fault: Fault, began_s: float) -> None:
        while (left_s := began_s + fault.at_s - time.monotonic()) > 0:
            if self._closing:
                return
            await asyncio.sleep(min(left_s, 0.2))
        if not self._closing:
            await self._carry_out(fault)

    async def _carry_out(self, fault: Fault) -> None:
        number = 0 if fault.kind is FaultKind.CORE_CRASH else fault.worker
        down = len(self._busy - {0})
        if number in self._busy or (number and down >= self._wanted.dead_at_once):
            self._note(fault, time.monotonic(), skipped=True)
            return
        self._busy.add(number)
        began_s = time.monotonic()
        try:
            await _DEEDS[fault.kind](self, fault)
        finally:
            self._busy.discard(number)
            self._note(fault, began_s)

    def _note(self, fault: Fault, began_s: float, *, skipped: bool = False) -> None:
        self.happened.append(
            Happened(
                kind=fault.kind.value,
                worker=0 if fault.kind is FaultKind.CORE_CRASH else fault.worker,
                began_s=began_s,
                ended_s=time.monotonic(),
                skipped=skipped,
            )
        )

    async def _crash(self, fault: Fault) -> None:
        self._cluster.crash_worker(fault.worker)
        await asyncio.sleep(self._wanted.restart_s)
        self._cluster.start_worker(fault.worker)

    async def _hang(self, fault: Fault) -> None:
        self._cluster.hang_worker(fault.worker)
        await asyncio.sleep(fault.for_s)
        self._cluster.wake_worker(fault.worker)

    async def _slow(self, fault: Fault) -> None:
        until_s = time.monotonic() + fault.for_s
        while time.monotonic() < until_s and not self._closing:
            self._cluster.hang_worker(fault.worker)
            await asyncio.sleep(SLOW_STOP_S)
            self._cluster.wake_worker(fault.worker)
            await asyncio.sleep(SLOW_RUN_S)

    async def _cut(self, fault: Fault) -> None:
        assert self._cuts is not None
        await asyncio.to_thread(self._cuts.cut, fault.worker)
        await asyncio.sleep(fault.for_s)
        await asyncio.to_thread(self._cuts.heal, fault.worker)

    async def _core_crash(self, fault: Fault) -> None:
        del fault
        self._cluster.crash_core()
        await asyncio.sleep(self._wanted.restart_s)
        self._cluster.launch_core()
        await asyncio.to_thread(self._cluster.await_core)


_DEEDS: Final[dict[FaultKind, Callable[[Injector, Fault], Coroutine[None, None, None]]]] = {
    FaultKind.CRASH: Injector._crash,
    FaultKind.HANG: Injector._hang,
    FaultKind.SLOW: Injector._slow,
    FaultKind.CUT: Injector._cut,
    FaultKind.CORE_CRASH: Injector._core_crash,
}
