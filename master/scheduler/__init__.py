"""The scheduler: a pure machine that decides which worker gets which job, and what follows.

`events` is its whole input, `effects` its whole output, `machine.Scheduler`
the machine. `docs/scheduling.md` tells the rules with their reasons.
"""

from master.scheduler.config import SchedulerConfig
from master.scheduler.machine import Scheduler
from master.scheduler.workers import WorkerStats

__all__ = ["Scheduler", "SchedulerConfig", "WorkerStats"]
