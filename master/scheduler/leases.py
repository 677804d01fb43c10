"""Leases: time-limited rights of one worker to report one attempt at one job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Lease:
    """One live lease. Times are monotonic seconds.

    `model` is the one in force when it was granted. `expected_s` is how long it
    was expected to take then, waiting in the worker's slots included. `hedge`
    is true while it is the second lease of its job.
    """

    job: int
    token: int
    worker: str
    model: str | None
    granted: float
    expected_s: float
    alone: bool
    hedge: bool
    started: float | None = None
