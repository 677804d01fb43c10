"""Monotonic time for decisions, wall-clock time for people, and the bridge between them."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Both clocks read together once, so that a monotonic moment can be shown to people."""

    wall_at_start: float
    monotonic_at_start: float

    @staticmethod
    def start() -> Clock:
        """Read both clocks now."""
        return Clock(time.time(), time.monotonic())

    @staticmethod
    def now() -> float:
        """Monotonic seconds."""
        return time.monotonic()

    @staticmethod
    def wall() -> float:
        """Seconds since the epoch."""
        return time.time()

    def to_wall(self, moment: float) -> float:
        """A recent monotonic moment as wall-clock seconds, following later clock steps."""
        return time.time() - (time.monotonic() - moment)

    def to_monotonic(self, wall: float) -> float:
        """A wall-clock moment (a stored deadline) as monotonic seconds."""
        return time.monotonic() + (wall - time.time())

    def uptime_s(self) -> float:
        """Seconds since this process began."""
        return time.monotonic() - self.monotonic_at_start
