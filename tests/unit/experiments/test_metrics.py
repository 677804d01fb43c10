"""Metrics of a replicate made by hand, where each number can be counted."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from experiments.events import Happened, Usage
from experiments.history import Audit, Grant
from experiments.metrics import Evidence, measure
from experiments.rows import COUNTED, WARMUP, JobRow

ROW = JobRow(
    point="p",
    replicate=0,
    phase=COUNTED,
    number=1,
    picture="a",
    image="a",
    size_bytes=1000,
    text_bits=50_000,
    began_s=10.0,
    ended_s=11.0,
    ok=True,
    tries=1,
    job="j1",
)


def row(**changes: Any) -> JobRow:
    return msgspec.structs.replace(ROW, **changes)


def audit(job: str, token: int, outcome: str, granted_s: float, ended_s: float) -> Audit:
    grant = Grant(job, token, "worker-1", outcome, granted_s, ended_s)
    return Audit(grant, granted_s + 0.5, outcome == "lost")


def test_rates_leave_out_the_warm_up_and_what_failed() -> None:
    rows = [
        row(phase=WARMUP, began_s=0.0, ended_s=9.0),
        row(),
        row(began_s=11.0, ended_s=12.0, label=3, class_id=3),
        row(began_s=12.0, ended_s=14.0, label=3, class_id=4, tries=4),
        row(began_s=13.0, ended_s=14.0, ok=False, job=None),
    ]
    found = measure(Evidence(rows))
    assert found["total_s"] == 4.0
    assert found["throughput_per_s"] == 1.0
    assert found["goodput_per_s"] == 0.75
    assert found["goodput_bps"] == 8 * 3000 / 4
    assert found["text_bps"] == 150_000 / 4
    assert (found["images"], found["lost_images"], found["success_rate"]) == (4, 1, 0.75)
    assert found["accuracy"] == 0.5
    assert found["tries_per_image"] == 7 / 4
    assert found["latency_ms_p50"] == 1000.0
    assert math.isnan(found["queue_ms_p50"])


def test_lost_work_and_recovery_are_counted_from_the_audit() -> None:
    rows = [row(), row(job="j2")]
    audits = [
        audit("j1", 1, "lost", 10.0, 13.0),
        audit("j1", 2, "succeeded", 13.0, 16.0),
        audit("j2", 3, "succeeded", 13.0, 17.0),
        audit("j9", 4, "lost", 1.0, 2.0),
    ]
    fault = Happened(kind="crash", worker=1, began_s=11.0, ended_s=12.0)
    skipped = Happened(kind="crash", worker=1, began_s=14.0, ended_s=14.0, skipped=True)
    found = measure(Evidence(rows, audits, [fault, skipped]))
    assert (found["reassigned"], found["duplicates"], found["blamed"]) == (1, 1, 1)
    assert found["wasted_s"] == 2.5
    assert (found["faults"], found["detection_s"], found["recovery_s"]) == (1, 2.0, 5.0)


def test_a_worker_is_dead_from_its_crash_to_the_first_lease_of_its_next_life() -> None:
    rows = [row(began_s=10.0, ended_s=12.0), row(began_s=10.0, ended_s=20.0)]
    audits = [audit("j1", 1, "lost", 10.0, 11.0), audit("j1", 2, "succeeded", 14.0, 20.0)]
    crash = Happened(kind="crash", worker=1, began_s=11.0, ended_s=12.0)
    hang = Happened(kind="hang", worker=1, began_s=15.0, ended_s=16.0)
    last = Happened(kind="crash", worker=2, began_s=19.0, ended_s=25.0)
    found = measure(Evidence(rows, audits, [crash, hang, last], workers=2))
    assert found["dead_share"] == pytest.approx((3.0 + 1.0) / (2 * 10.0))
    assert math.isnan(measure(Evidence(rows, audits, [crash]))["dead_share"])


def test_use_of_the_machine_is_per_image() -> None:
    found = measure(Evidence([row(), row()], usage={"core": Usage(0.5, 2_000_000)}))
    assert found["cpu_core_ms_per_image"] == pytest.approx(250)
    assert found["memory_core_mb"] == 2.0
    assert math.isnan(found["memory_web_mb"])


def test_nothing_gives_no_numbers_and_no_error() -> None:
    found = measure(Evidence([]))
    assert math.isnan(found["goodput_per_s"]) and math.isnan(found["success_rate"])
