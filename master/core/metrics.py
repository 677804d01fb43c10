"""What the core counts, as Prometheus text and as the numbers of `/api/v1/stats`.

Every metric is listed in `docs/operations.md`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import psutil
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


@dataclass(frozen=True, slots=True)
class Reading:
    """One consistent reading of the core, made when somebody asks."""

    jobs: Mapping[str, int]
    queued_bytes: int
    workers: Mapping[str, int]
    counters: Mapping[str, int]
    subscribers: int
    waiters: int
    uptime_s: float
    storage_failing: bool
    links: Mapping[str, tuple[int, float | None]]
    """By worker: its streams, and the share of segments sent again."""


class MetricsText:
    """Renders a `Reading` and the latency histogram."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._process = psutil.Process()
        self.latency = Histogram(
            "lookout_job_latency_seconds",
            "From acceptance to the durable outcome of a job",
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )

    def render(self) -> str:
        """The exposition format, version 0.0.4."""
        return generate_latest(self._registry).decode()

    def resident_bytes(self) -> int:
        """Resident memory of this process."""
        return int(self._process.memory_info().rss)

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each rendering."""
        reading = self._read()
        jobs = GaugeMetricFamily("lookout_jobs", "Jobs in the table, by state", labels=["state"])
        for state, count in reading.jobs.items():
            jobs.add_metric([state], count)
        yield jobs
        workers = GaugeMetricFamily(
            "lookout_workers", "Connected workers, by liveness", labels=["liveness"]
        )
        for liveness, count in reading.workers.items():
            workers.add_metric([liveness], count)
        yield workers
        events = CounterMetricFamily(
            "lookout_events", "What the scheduler counted, by kind", labels=["kind"]
        )
        for kind, count in reading.counters.items():
            events.add_metric([kind], count)
        yield events
        yield from self._links(reading)
        yield from self._gauges(reading)

    def _links(self, reading: Reading) -> Iterable[Metric]:
        streams = GaugeMetricFamily(
            "lookout_worker_streams", "TCP connections of a worker", labels=["worker"]
        )
        again = GaugeMetricFamily(
            "lookout_worker_retransmitted_ratio",
            "Part of the segments sent to a worker lately that had to be sent again",
            labels=["worker"],
        )
        for worker, (count, share) in reading.links.items():
            streams.add_metric([worker], count)
            if share is not None:
                again.add_metric([worker], share)
        yield streams
        yield again

    def _gauges(self, reading: Reading) -> Iterable[Metric]:
        values = {
            "lookout_open_bytes": ("Bytes of images without an outcome", reading.queued_bytes),
            "lookout_event_streams": ("Web processes on the event stream", reading.subscribers),
            "lookout_waiting_requests": ("Requests that wait for jobs", reading.waiters),
            "lookout_storage_failing": (
                "1 while the disk takes no writes",
                int(reading.storage_failing),
            ),
            "lookout_uptime_seconds": ("Seconds since the core began", reading.uptime_s),
            "lookout_resident_bytes": ("Resident memory of the core", self.resident_bytes()),
            "lookout_cpu_seconds": ("CPU time of the core", sum(self._process.cpu_times()[:2])),
        }
        for name, (text, value) in values.items():
            yield GaugeMetricFamily(name, text, value=value)
