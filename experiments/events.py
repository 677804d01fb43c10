"""What is noted while a replicate runs: faults as they were, and what processes used."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class Happened(msgspec.Struct, kw_only=True, frozen=True):
    """One fault as it was: monotonic seconds; `skipped` if its worker was down already.

    `worker` is 0 for the core.
    """

    kind: str
    worker: int
    began_s: float
    ended_s: float
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process used so far; `resident_bytes` is the most that a look found."""

    cpu_s: float
    resident_bytes: int
