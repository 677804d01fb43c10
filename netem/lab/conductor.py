"""Carry out a timeline on a lab, on schedule, and say when each step held."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol, Self

from netem.spec import Duplex
from netem.timeline import Executed, Step, Timeline, Verb

log = logging.getLogger("netem.timeline")


class Controls(Protocol):
    """What a timeline needs of a lab; each returns the monotonic time when it held."""

    def set(self, host: str, link: Duplex) -> float:
        """As `Lab.set`."""
        ...

    def cut(self, host: str) -> float:
        """As `Lab.cut`."""
        ...

    def heal(self, host: str) -> float:
        """As `Lab.heal`."""
        ...


def perform(
    timeline: Timeline,
    controls: Controls,
    *,
    start_s: float | None = None,
    stop: threading.Event | None = None,
    tell: Callable[[Executed], object] | None = None,
) -> list[Executed]:
    """Do every step at its time after `start_s` (monotonic; now by default).

    A step that is late does not make the later ones late. Returns early, with
    what was done, once `stop` is set.

    Raises:
        NetemError: a step could not be done; those after it were not tried.
    """
    begin_s = time.monotonic() if start_s is None else start_s
    stopped = stop or threading.Event()
    done: list[Executed] = []
    for step in timeline.steps:
        planned_s = begin_s + step.at_s
        if stopped.wait(max(0.0, planned_s - time.monotonic())):
            break
        executed = Executed(step, planned_s, _do(step, controls))
        log.info("%.3f s: %s, %.1f ms late", executed.done_s, step, executed.late_s * 1e3)
        done.append(executed)
        if tell is not None:
            tell(executed)
    return done


def _do(step: Step, controls: Controls) -> float:
    if step.link is not None:
        return controls.set(step.host, step.link)
    return controls.cut(step.host) if step.verb is Verb.CUT else controls.heal(step.host)


class Conductor:
    """A timeline in a thread of its own, while the caller measures; a context manager.

    Leaving the block stops what is left of the timeline. `wait` first, to let it end.
    """

    def __init__(self, timeline: Timeline, controls: Controls) -> None:
        self.executed: list[Executed] = []
        self._problem: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(timeline, controls), name="timeline", daemon=True
        )

    def start(self) -> Self:
        """Begin now."""
        self._thread.start()
        return self

    def wait(self, timeout_s: float) -> list[Executed]:
        """Every step with its times, once the last is done.

        Raises:
            TimeoutError: it isn't within `timeout_s`.
            NetemError: a step could not be done.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"the timeline is not over after {timeout_s} s")
        if self._problem is not None:
            raise self._problem
        return self.executed

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, timeline: Timeline, controls: Controls) -> None:
        try:
            perform(timeline, controls, stop=self._stop, tell=self.executed.append)
        except Exception as problem:  # the edge of a thread: `wait` raises it again
            self._problem = problem
