"""Everything the scheduler remembers, and the list of effects that it is writing.

The rules (`grants`, `endings`, `results`, `membership`, `clocks`, `intake`)
are functions on this board. Promises only that its parts are told of each
other's changes: whoever changes a worker calls `touch`.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict

from master.detector import Detector
from master.scheduler.config import SchedulerConfig
from master.scheduler.deadlines import Deadlines
from master.scheduler.effects import Effect
from master.scheduler.hazard import Hazard
from master.scheduler.hedging import Stragglers
from master.scheduler.jobs import JobTable
from master.scheduler.leases import Lease
from master.scheduler.ranking import Ranking
from master.scheduler.rates import Rate
from master.scheduler.tokens import TokenBlock
from master.scheduler.workers import Worker

COUNTERS = (
    "accepted", "recovered", "succeeded", "failed", "cancelled", "deadline_exceeded", "poison",
    "granted", "hedged", "hedge_wins", "started", "errored", "expired", "lost", "released",
    "requeued", "blamed", "pardoned", "stale", "wasted", "late_accepted",
    "suspected", "died", "revived", "quarantined", "own_pauses",
)  # fmt: skip
"""What is counted; every name is there from the start, so that a graph begins at zero."""


class Board:
    """The scheduler's state. `now` is the time of the event that is being handled."""

    def __init__(self, config: SchedulerConfig, rng: random.Random) -> None:
        self.config = config
        self.rng = rng
        self.now = 0.0
        self.jobs = JobTable()
        self.leases: dict[int, Lease] = {}
        self.workers: dict[str, Worker] = {}
        self.ranking = Ranking(config.tail_factor)
        self.stragglers = Stragglers(
            config.hedge_factor, config.hedge_min_s, config.hedge_unknown_s
        )
        self.tokens = TokenBlock(config.tokens_retry_s)
        self.timers: Deadlines[str] = Deadlines()
        self.model: str | None = None
        self.stopping = False
        # Since and until when the job at the head of the queue waits for a faster worker.
        self.held_back_at: float | None = None
        self.held_back_until = 0.0
        self.counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        # Blamed deaths by worker name, and what each gone incarnation was blamed for.
        self.deaths: OrderedDict[str, int] = OrderedDict()
        self.gone: OrderedDict[tuple[str, str], tuple[int, ...]] = OrderedDict()
        self.hazard = Hazard(config.executions_remembered_max)
        self._effects: list[Effect] = []

    def say(self, effect: Effect) -> None:
        """Add an effect to the answer."""
        self._effects.append(effect)

    def take_effects(self) -> list[Effect]:
        """The answer so far; the next one begins empty."""
        effects, self._effects = self._effects, []
        return effects

    def new_worker(self, key: str, name: str, incarnation: str) -> Worker:
        """A record for a connection, with a prior for its rate."""
        config = self.config
        detector = Detector(config.detector, config.heartbeat_interval_s, self.now)
        rate = Rate(self._prior_per_s(), config.rate_memory_s)
        return Worker(key, name, incarnation, detector, rate)

    def touch(self, worker: Worker) -> None:
        """Something of the worker changed: rank it anew, and see that its clocks are watched."""
        self.ranking.update(worker)
        self.watch(worker)

    def watch(self, worker: Worker) -> None:
        """Set the worker's timer, unless it is early enough already: it is set again then."""
        due = worker.next_deadline(self.config)
        if due < worker.timer_at:
            worker.timer_at = due
            self.timers.set(worker.key, due)

    def _prior_per_s(self) -> float:
        """A newcomer's rate: the median of those measured, so it is neither flooded nor idle."""
        measured = sorted(w.rate.per_s for w in self.workers.values() if w.rate.measured)
        return measured[len(measured) // 2] if measured else self.config.rate_prior_per_s
