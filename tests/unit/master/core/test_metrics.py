"""The metrics, and that `docs/operations.md` lists each of them."""

from __future__ import annotations

import re
from random import Random

from master.core.metrics import MetricsText, Reading
from master.scheduler import Scheduler, SchedulerConfig
from tests.shared import REPOSITORY

PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")


def _reading() -> Reading:
    return Reading(
        jobs={"queued": 3, "succeeded": 2},
        queued_bytes=300,
        workers={"alive": 1},
        counters=Scheduler(SchedulerConfig(), Random(1)).counters,
        subscribers=0,
        waiters=0,
        uptime_s=1.5,
        storage_failing=False,
        links={"w1": (4, 0.125), "w2": (1, None)},
    )


def _text() -> str:
    metrics = MetricsText(_reading)
    metrics.latency.observe(0.02)
    return metrics.render()


def test_values_are_those_of_the_reading() -> None:
    text = _text()
    assert 'lookout_jobs{state="queued"} 3.0' in text
    assert 'lookout_workers{liveness="alive"} 1.0' in text
    assert "lookout_open_bytes 300.0" in text
    assert 'lookout_worker_streams{worker="w1"} 4.0' in text
    assert 'lookout_worker_retransmitted_ratio{worker="w1"} 0.125' in text
    assert 'lookout_worker_streams{worker="w2"} 1.0' in text
    assert 'lookout_worker_retransmitted_ratio{worker="w2"}' not in text
    assert 'lookout_job_latency_seconds_bucket{le="0.025"} 1.0' in text


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    types = re.findall(r"^# TYPE (lookout_\w+) (\w+)", _text(), re.MULTILINE)
    served = {name: kind for name, kind in types if not name.endswith("_created")}
    rows = re.findall(r"^\| `(lookout_\w+)(?:\{\w+\})?` \| (\w+) \|", PAGE, re.MULTILINE)
    assert dict(rows) == served


def test_every_kind_of_event_is_documented() -> None:
    kinds = PAGE.split("Kinds of `lookout_events_total`:")[1]
    documented = set(re.findall(r"^\| `(\w+)` \|", kinds, re.MULTILINE))
    assert documented == set(_reading().counters)
