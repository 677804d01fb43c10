"""What the scheduler costs: `python -m tests.bench.scheduler_bench`.

CPU time a job, from acceptance to its outcome (accept, grant, started, result),
with so many workers connected and so many jobs waiting; heartbeats apart. Then
bytes a waiting job. Each row is repeated and given as median with the smallest
and the largest, because other work on the machine moves single runs. CPU time
of this process, not wall time, is measured.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import tracemalloc
from collections import deque
from dataclasses import dataclass, field

from master.scheduler import Scheduler, SchedulerConfig
from master.scheduler.effects import Effect, Grant, ReserveTokens
from master.scheduler.events import (
    AttemptStarted,
    Event,
    HeartbeatSeen,
    JobsAccepted,
    ModelChanged,
    ResultArrived,
    TokensReserved,
    WorkerJoined,
    WorkerReady,
)

WORKERS = (3, 100, 1000)
QUEUED = (10, 10_000, 1_000_000)
SLOTS = 8
UPLOAD_JOBS = 60


@dataclass(slots=True)
class Cluster:
    """A scheduler with workers that answer in order of the grants; time is made up."""

    workers: int
    queued: int
    now: float = 0.0
    next_job: int = 1
    held: deque[Grant] = field(default_factory=deque)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(SchedulerConfig(), random.Random(1))
        self.do(TokensReserved(1, 1_000_000))
        self.do(ModelChanged("m"))
        for number in range(self.workers):
            key = f"w{number}#1"
            self.do(WorkerJoined(key, f"w{number}", "i"))
            self.do(WorkerReady(key, SLOTS, "m"))
        self.accept(self.queued + self.workers * SLOTS)

    def do(self, event: Event) -> None:
        """Hand over an event; answer what a shell would."""
        effects: list[Effect] = self.scheduler.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, Grant):
                self.held.append(effect)
            elif isinstance(effect, ReserveTokens):
                self.do(TokensReserved(effect.last, effect.last))

    def accept(self, count: int) -> None:
        """New jobs, in submissions of 60."""
        end = self.next_job + count
        while self.next_job < end:
            last = min(end, self.next_job + UPLOAD_JOBS)
            self.do(JobsAccepted(range(self.next_job, last)))
            self.next_job = last

    def work(self, jobs: int) -> None:
        """So many jobs come, begin and end; the queue stays as long as it was."""
        for number in range(jobs):
            if number % UPLOAD_JOBS == 0:
                self.accept(min(UPLOAD_JOBS, jobs - number))
            self.now += 0.01 / self.workers
            grant = self.held.popleft()
            self.do(AttemptStarted(grant.worker, grant.job, grant.token))
            self.do(ResultArrived(grant.worker, grant.job, grant.token, "m"))
            self.scheduler.next_deadline()

    def beat(self, rounds: int) -> None:
        """Every worker beats so many times, half a second apart."""
        for number in range(rounds):
            self.now += 0.5
            for worker in range(self.workers):
                self.do(HeartbeatSeen(f"w{worker}#1", number, SLOTS, SLOTS))
                self.scheduler.next_deadline()


def cpu_us(run: object, count: int) -> float:
    """CPU microseconds a step of `run`, which does `count` of them."""
    assert callable(run)
    began_s = time.process_time()
    run()
    return (time.process_time() - began_s) / count * 1e6


def row(name: str, figures: list[float], unit: str) -> str:
    """Median with smallest and largest."""
    middle = statistics.median(figures)
    return f"{name:<44} {middle:9.1f} {unit}  ({min(figures):.1f} to {max(figures):.1f})"


def bytes_per_queued_job(jobs: int) -> float:
    """Traced memory of a scheduler that holds `jobs` waiting jobs and no worker."""
    tracemalloc.start()
    cluster = Cluster(0, jobs)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cluster.scheduler.counts()["queued"] == jobs
    return size / jobs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs of one run")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for workers in WORKERS:
        for queued in QUEUED:
            cluster = Cluster(workers, queued)
            figures = [
                cpu_us(lambda c=cluster: c.work(args.jobs), args.jobs) for _ in range(args.repeats)
            ]
            print(row(f"{workers} workers, {queued:,} queued: a job", figures, "µs"), flush=True)
        beats = [cpu_us(lambda c=cluster: c.beat(10), 10 * workers) for _ in range(args.repeats)]
        print(row(f"{workers} workers: a heartbeat", beats, "µs"), flush=True)
    for queued in QUEUED[1:]:
        print(f"{queued:,} queued: {bytes_per_queued_job(queued):.1f} bytes a job")


if __name__ == "__main__":
    main()
