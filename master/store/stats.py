"""What the writer measures about itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SAMPLES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class StoreStats:
    """A snapshot. Quantiles are over the last commits; a group is one commit.

    `commit_*` is from taking a group to its futures, `sync_*` the syncing of image
    files within it. `pending_*` are not durable yet. `failing` is the reason
    while the disk refuses writes, else None.
    """

    commits: int
    ops: int
    groups_failed: int
    group_ops_p50: float
    group_ops_max: int
    commit_p50_s: float
    commit_p99_s: float
    sync_p50_s: float
    sync_p99_s: float
    syncs: int
    writer_cpu_s: float
    pending_ops: int
    pending_bytes: int
    failing: str | None


class Meter:
    """Collects figures in the writer thread; `quantile` copes with being read meanwhile."""

    def __init__(self) -> None:
        self.commits = 0
        self.ops = 0
        self.groups_failed = 0
        self.syncs = 0
        self.group_ops_max = 0
        self.cpu_s = 0.0
        self.groups: deque[int] = deque(maxlen=SAMPLES_MAX)
        self.commit_s: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.sync_s: deque[float] = deque(maxlen=SAMPLES_MAX)

    def committed(self, ops: int, elapsed_s: float, cpu_s: float) -> None:
        """One group is durable."""
        self.commits += 1
        self.ops += ops
        self.group_ops_max = max(self.group_ops_max, ops)
        self.cpu_s = cpu_s
        self.groups.append(ops)
        self.commit_s.append(elapsed_s)

    def synced(self, elapsed_s: float) -> None:
        """One image file was synced."""
        self.syncs += 1
        self.sync_s.append(elapsed_s)


def quantile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank quantile, 0 without samples."""
    if not samples:
        return 0.0
    ranked = sorted(samples)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
