"""Every bound and knob of the store, with units."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from master.store.write import Write
from wire.errors import EnvironmentFault

MIB = 2**20


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """How the store batches, how much it holds, and what it leaves free.

    Commits are paced under load: after a group of N writes the next one begins at
    the earliest N times `group_op_s` after it began, `group_interval_s` at most, so
    that a fast disk doesn't turn into hundreds of tiny groups that eat a core; or so far
    apart as `JobStore.be_patient` says, where that is more. A lone write after a quiet
    moment is never delayed. `notify`, if given, is called
    once per group from the writer thread with its resolved futures, in order.
    `sync` makes a file's data durable, `wall` tells seconds since the epoch.
    """

    segment_bytes: int = 64 * MIB
    min_free_bytes: int = 256 * MIB
    group_ops_max: int = 4096
    group_bytes_max: int = 32 * MIB
    group_interval_s: float = 0.010
    group_op_s: float = 0.0005
    queue_ops_max: int = 262_144
    queue_bytes_max: int = 512 * MIB
    keys_max: int = 1_000_000
    key_ttl_s: float = 86_400.0
    retry_max_s: float = 5.0
    close_timeout_s: float = 10.0
    # A write that takes longer is reported: the disk hangs.
    stuck_s: float = 10.0
    checkpoint_rows: int = 16_384
    sync: Callable[[int], None] = os.fdatasync
    wall: Callable[[], float] = time.time
    notify: Callable[[Sequence[Write[Any]]], None] | None = None

    def __post_init__(self) -> None:
        for name in ("segment_bytes", "group_ops_max", "group_bytes_max", "queue_ops_max"):
            value = getattr(self, name)
            if value < 1:
                raise EnvironmentFault("bad_config", f"{name} is {value}; it must be at least 1")
        if self.min_free_bytes < 0 or not 0 <= self.group_interval_s <= 1:
            raise EnvironmentFault(
                "bad_config",
                f"min_free_bytes is {self.min_free_bytes} (at least 0) and group_interval_s "
                f"{self.group_interval_s} (0 to 1 s)",
            )
