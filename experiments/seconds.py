"""Two clocks, and the way from one to the other."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on the monotonic clock (which every process of a machine shares) and on
    the wall clock (which the job table uses)."""

    monotonic_s: float
    wall_s: float

    @classmethod
    def now(cls) -> Moment:
        """This instant."""
        return cls(time.monotonic(), time.time())

    def from_wall(self, wall_s: float) -> float:
        """Monotonic seconds of a wall-clock time near this moment."""
        return self.monotonic_s + (wall_s - self.wall_s)
