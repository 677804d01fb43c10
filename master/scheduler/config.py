"""The scheduler's configuration: every rule's number, with its unit in its name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from master.detector import DetectorConfig
from wire.errors import LocalFault


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Durations in seconds, counts in whole numbers. `docs/scheduling.md` explains each rule.

    Raises `LocalFault` for values that contradict each other.
    """

    # Clocks of a job.
    queue_ttl_s: float = 86_400.0
    attempt_timeout_s: float = 600.0
    lease_ttl_s: float = 15.0
    progress_timeout_s: float = 60.0
    # Retries.
    attempts_max: int = 5
    # A job is poison after `poison_deaths`, or more where workers die under others too: as
    # many as fewer than `poison_chance` of innocent jobs would meet.
    poison_deaths: int = 3
    poison_deaths_max: int = 64
    poison_chance: float = 1e-6
    executions_remembered_max: int = 512
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0
    # Workers.
    heartbeat_interval_s: float = 0.5
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    drop_after_s: float = 60.0
    own_pause_s: float = 1.0
    quarantine_base_s: float = 30.0
    quarantine_cap_s: float = 600.0
    faults_in_a_row_max: int = 8
    release_pause_s: float = 0.5
    # Dispatch and hedging.
    rate_prior_per_s: float = 20.0
    rate_memory_s: float = 10.0
    tail_factor: float = 1.25
    hedge_factor: float = 2.0
    hedge_min_s: float = 0.5
    hedge_unknown_s: float = 2.0
    # Hedges granted never exceed this share of all grants, plus the burst.
    hedge_share: float = 0.1
    hedge_burst: float = 10.0
    # Tokens and memory.
    tokens_retry_s: float = 5.0
    tokens_remembered_max: int = 16
    workers_remembered_max: int = 1024

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and not value > 0:
                raise LocalFault(f"{item.name} is {value}; it must be above 0")
        if self.backoff_cap_s < self.backoff_base_s:
            raise LocalFault(
                f"backoff_cap_s {self.backoff_cap_s} is below backoff_base_s {self.backoff_base_s}"
            )
        if self.quarantine_cap_s < self.quarantine_base_s:
            raise LocalFault(
                f"quarantine_cap_s {self.quarantine_cap_s} is below "
                f"quarantine_base_s {self.quarantine_base_s}"
            )
        if self.lease_ttl_s < 3 * self.heartbeat_interval_s:
            raise LocalFault(
                f"lease_ttl_s is {self.lease_ttl_s}; give at least three heartbeat intervals "
                f"({3 * self.heartbeat_interval_s} s)"
            )
        if self.poison_deaths_max < self.poison_deaths:
            raise LocalFault(
                f"poison_deaths_max {self.poison_deaths_max} is below "
                f"poison_deaths {self.poison_deaths}"
            )
        if self.tail_factor < 1 or self.hedge_factor < 1:
            raise LocalFault("tail_factor and hedge_factor must be at least 1")
