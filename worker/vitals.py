"""What the heartbeat reports: written by the stages that work, read by the thread that beats."""

from __future__ import annotations

import threading


class Vitals:
    """Progress, held and executing leases of one worker process; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress = 0
        self._held = 0
        self._executing = 0

    def advance(self) -> None:
        """Some stage finished a step."""
        with self._lock:
            self._progress += 1

    def set_leases(self, held: int, executing: int) -> None:
        """Write down what the agent holds."""
        with self._lock:
            self._held, self._executing = held, executing

    def read(self) -> tuple[int, int, int]:
        """Progress, held, executing, as of one moment."""
        with self._lock:
            return self._progress, self._held, self._executing
