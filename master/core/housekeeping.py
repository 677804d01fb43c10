"""The core's own tasks: the event stream's flushes, the stats event, the drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from master.logs import fields

if TYPE_CHECKING:
    from master.core.service import Core

log = logging.getLogger("lookout.core")


class Housekeeping:
    """Tasks that live as long as the core, and the ones that it waits for at the end."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` beside everything else; a failure is logged with its traceback."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error(**fields("task_failed"), exc_info=task.exception())

    def start(self) -> None:
        """Begin the loops."""
        self.spawn(self._flush_events())
        self.spawn(self._publish_stats())

    async def stop(self) -> None:
        """End all tasks."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _flush_events(self) -> None:
        core = self._core
        while True:
            await core.hub.changed.wait()
            # Changes of one job within this time are one event.
            await asyncio.sleep(core.hub.pause_s(core.config.event_flush_s))
            if core.hub.ready(core.clock.now()):
                await core.hub.flush()

    async def _publish_stats(self) -> None:
        core = self._core
        while True:
            await asyncio.sleep(core.config.stats_interval_s)
            if core.hub.subscribers:
                stats = msgspec.to_builtins(core.desk.stats(0))
                stats.pop("request")
                stats.pop("type")
                core.hub.publish("stats", stats)
                for session in list(core.roster.sessions.values()):
                    core.worker_changed(session)

    async def drain(self) -> None:
        """Wait for what executes, at most `drain_timeout_s`, then let the process end."""
        core = self._core
        try:
            async with asyncio.timeout(core.config.drain_timeout_s):
                await core.quiet.wait()
                await core.durable.idle()
        except TimeoutError:
            left = core.scheduler.counts().get("leased", 0)
            log.warning(**fields("drain_timeout", leased=left))
        core.stopping.set()
