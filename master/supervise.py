"""Child processes, kept alive and ended cleanly.

Each child runs in a session of its own, so that Ctrl-C reaches only us and we
decide the order of the end. A child that dies is started again with a growing
pause; if we are killed ourselves, the kernel ends the children.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from master.logs import fields
from wire.errors import EnvironmentFault

log = logging.getLogger("lookout.up")

RESTART_PAUSE_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_AFTER_S = 30.0
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
LINE_BYTES_MAX = 64 * 2**10
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """In the child, between fork and exec: end when the supervisor is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(eq=False)
class Child:
    """One supervised process.

    `ready_word` is what its announcing line on stdout begins with after
    `LOOKOUT `; a child without one is taken as ready at once. `command` is
    asked for again at each start. Higher stages are ended first. `fatal` are
    exit statuses that a restart would not mend.
    """

    name: str
    command: Callable[[], Sequence[str]]
    stage: int = 0
    ready_word: str | None = None
    fatal: frozenset[int] = frozenset()
    announced: dict[str, object] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    failed: asyncio.Future[int] | None = None
    _process: asyncio.subprocess.Process | None = None
    _stopping: bool = False

    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Start, watch, start again, until `stop` or a status that is fatal."""
        deaths = 0
        loop = asyncio.get_running_loop()
        while not self.is_stopping():
            began = loop.time()
            status = await self._once()
            if self.is_stopping():
                return
            if status in self.fatal and self.failed is not None and not self.failed.done():
                self.failed.set_result(status)
                return
            deaths = 0 if loop.time() - began > STEADY_AFTER_S else deaths + 1
            pause_s = RESTART_PAUSE_S[min(deaths, len(RESTART_PAUSE_S) - 1)]
            log.warning(
                **fields("child_died", child=self.name, status=status, restart_in_s=pause_s)
            )
            await asyncio.sleep(pause_s)

    async def _once(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *self.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        log.info(**fields("child_started", child=self.name, pid=self._process.pid))
        if self.ready_word is None:
            self.ready.set()
        await self._read_lines(self._process)
        status = await self._process.wait()
        if self.ready_word is not None:
            self.ready.clear()
        self._process = None
        return status

    async def _read_lines(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            text = line.decode(errors="replace").rstrip()
            head = f"LOOKOUT {self.ready_word} "
            if self.ready_word is not None and text.startswith(head):
                self.announced = json.loads(text[len(head) :])
                self.ready.set()
            elif text:
                sys.stderr.write(f"{self.name}: {text}\n")

    def signal(self, number: int) -> None:
        """Send a signal if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def stop(self) -> None:
        """No more restarts; ask it to end."""
        self._stopping = True
        self.signal(signal.SIGTERM)


class Supervisor:
    """Runs children, ends them stage by stage."""

    def __init__(self) -> None:
        self._running: list[tuple[Child, asyncio.Task[None]]] = []
        self._stop_asked = asyncio.Event()
        self._signals = 0

    async def start(self, child: Child) -> None:
        """Start a child and wait until it is ready.

        Raises `EnvironmentFault` `child_failed` if it ends with a fatal status
        or isn't ready within `READY_TIMEOUT_S`.
        """
        loop = asyncio.get_running_loop()
        child.failed = loop.create_future()
        self._running.append((child, loop.create_task(child.run())))
        ready = loop.create_task(child.ready.wait())
        waiting: set[asyncio.Future[Any]] = {ready, child.failed}
        done, _ = await asyncio.wait(
            waiting, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        ready.cancel()
        if child.failed in done:
            self._running = [pair for pair in self._running if pair[0] is not child]
            raise ChildFailed(child.name, child.failed.result())
        if not done:
            raise EnvironmentFault(
                "not_ready", f"{child.name} was not ready within {READY_TIMEOUT_S:.0f} s; see above"
            )

    def handle_signals(self) -> None:
        """SIGINT and SIGTERM ask for the end; a second one forces it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals > 1:
            log.warning(**fields("forced", signal=number.name))
            for child, _ in self._running:
                child.signal(signal.SIGKILL)
        self._stop_asked.set()

    async def until_stopped(self) -> int:
        """Wait for a signal, or for a child that can't be mended; then end all in reverse."""
        failures = {child.failed: child for child, _ in self._running if child.failed}
        asked = asyncio.get_running_loop().create_task(self._stop_asked.wait())
        waiting: set[asyncio.Future[Any]] = {asked, *failures}
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        for future, child in failures.items():
            if future in done:
                log.error(**fields("child_failed", child=child.name, status=future.result()))
        await self.stop()
        return 0 if asked in done else 1

    async def stop(self) -> None:
        """End the children, the highest stage first; those that don't end are killed."""
        for stage in sorted({child.stage for child, _ in self._running}, reverse=True):
            await self._stop_stage([pair for pair in self._running if pair[0].stage == stage])
        self._running.clear()

    async def _stop_stage(self, stage: list[tuple[Child, asyncio.Task[None]]]) -> None:
        for child, _ in stage:
            child.stop()
        tasks = {task: child for child, task in stage}
        _, pending = await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        for task in pending:
            log.warning(**fields("child_killed", child=tasks[task].name, pid=tasks[task].pid))
            tasks[task].signal(signal.SIGKILL)
        if pending:
            await asyncio.wait(pending, timeout=STOP_TIMEOUT_S)


class ChildFailed(EnvironmentFault):
    """A child ended at once in a way that starting it again would not mend."""

    def __init__(self, child: str, status: int) -> None:
        super().__init__("child_failed", f"{child} could not start (exit status {status})")
        self.child = child
        self.status = status


def python(*arguments: str) -> list[str]:
    """A command line for one of our modules, with this interpreter."""
    return [sys.executable, "-m", *arguments]
