"""The workers that are connected: what each holds, how fast it is, and what is believed of it.

Owns capacity (slots, leases, ghosts), the clocks of one worker and its
measured rate. Leaves the choice between workers to `ranking` and every
decision to the rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from master.detector import Detector
from master.scheduler.config import SchedulerConfig
from master.scheduler.leases import Lease
from master.scheduler.rates import Rate
from master.states import Admission, Liveness


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What people see of a worker. `held` and `executing` count live leases."""

    liveness: Liveness
    admission: Admission
    ready: bool
    slots: int
    held: int
    executing: int
    rate_per_s: float
    completed: int
    errored: int
    stale: int
    blamed_deaths: int
    phi: float


GONE = WorkerStats(
    Liveness.DEAD, Admission.DRAINING, False, 0, 0, 0, 0.0, 0, 0, 0, 0, 0.0
)  # fmt: skip
"""What is said of a worker that isn't connected."""


@dataclass(slots=True, eq=False)
class Worker:
    """One connection of a worker. `key` names the connection, `name` the worker.

    `ghosts` are tokens that were taken from it while it executed them: a slot
    of its is busy with each until it answers. `progress_at` is when its
    progress was last seen to rise. `timer_at` is when its clocks are looked at.
    `entry` is its place in the ranking, `shares` its part of the ranking's sums.
    `paused_until` and `quarantined_until` are infinite while neither holds.
    """

    key: str
    name: str
    incarnation: str
    detector: Detector
    rate: Rate
    admission: Admission = Admission.ACCEPTING
    ready: bool = False
    model: str | None = None
    slots: int = 0
    leases: dict[int, Lease] = field(default_factory=dict)
    executing: int = 0
    ghosts: set[int] = field(default_factory=set)
    progress: int = -1
    progress_at: float = 0.0
    paused_until: float = math.inf
    quarantined_until: float = math.inf
    quarantines: int = 0
    stuck: bool = False
    faults_in_a_row: int = 0
    drop_asked: bool = False
    timer_at: float = math.inf
    entry: tuple[float, int, Worker] | None = None
    shares: tuple[float, int] = (0.0, 0)
    completed: int = 0
    errored: int = 0
    stale: int = 0

    @property
    def used(self) -> int:
        """Slots that are taken, for all we know."""
        return len(self.leases) + len(self.ghosts)

    @property
    def working(self) -> bool:
        """It is trusted to finish what it holds and to take more when it has room."""
        return (
            self.ready
            and self.admission is Admission.ACCEPTING
            and self.detector.liveness is Liveness.ALIVE
        )

    @property
    def open(self) -> bool:
        """It may get a lease now."""
        return self.working and self.used < self.slots and self.paused_until == math.inf

    # --- leases ------------------------------------------------------------------------

    def add(self, lease: Lease) -> None:
        """It holds one lease more."""
        if not self.leases:
            self.rate.begin(lease.granted)
            self.progress_at = max(self.progress_at, lease.granted)
        self.leases[lease.token] = lease

    def begin(self, lease: Lease, now: float) -> None:
        """It is about to execute a lease that it holds."""
        if not self.executing:
            self.progress_at = max(self.progress_at, now)
        if lease.started is None:
            self.executing += 1
            lease.started = now

    def remove(self, lease: Lease, answered: bool) -> None:
        """A lease is over; unless the worker answered it, what it began it still executes."""
        del self.leases[lease.token]
        if lease.started is not None:
            self.executing -= 1
            if not answered:
                self.ghosts.add(lease.token)

    # --- clocks ------------------------------------------------------------------------

    def expires_at(self, lease_ttl_s: float) -> float:
        """When its leases expire unless something arrives; infinite without leases.

        Any message renews all of them. The first lease is the oldest one.
        """
        if not self.leases:
            return math.inf
        first = next(iter(self.leases.values()))
        return max(self.detector.seen_at, first.granted) + lease_ttl_s

    def capped_at(self, attempt_timeout_s: float) -> float:
        """When its oldest lease is over, however lively the worker is."""
        if not self.leases:
            return math.inf
        return next(iter(self.leases.values())).granted + attempt_timeout_s

    def stuck_at(self, progress_timeout_s: float) -> float:
        """When it counts as stuck unless its progress rises; infinite if nothing waits for it."""
        if self.executing or (self.ghosts and self.leases):
            return self.progress_at + progress_timeout_s
        return math.inf

    def next_deadline(self, config: SchedulerConfig) -> float:
        """When one of its clocks is due."""
        silent = self.detector.next_deadline()
        if silent == math.inf and not self.drop_asked:
            silent = self.detector.seen_at + config.drop_after_s
        return min(
            silent,
            self.paused_until,
            self.expires_at(config.lease_ttl_s),
            self.capped_at(config.attempt_timeout_s),
            self.stuck_at(config.progress_timeout_s),
            self.quarantined_until,
        )
