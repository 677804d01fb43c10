"""From the rows of a replicate to its numbers. Pure; `docs/experiments.md` defines each."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from experiments.events import Happened, Usage
from experiments.history import Audit
from experiments.rows import COUNTED, JobRow
from experiments.scenario import FaultKind
from experiments.statistics import percentile

PERCENTILES: Final = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one replicate; `audits` have monotonic times."""

    rows: Sequence[JobRow]
    audits: Sequence[Audit] = ()
    faults: Sequence[Happened] = ()
    usage: dict[str, Usage] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    loss_requested: float = math.nan
    loss_observed: float = math.nan
    workers: int = 0


def measure(evidence: Evidence) -> dict[str, float]:
    """Every metric of one replicate by name; NaN for what could not be measured."""
    counted = [row for row in evidence.rows if row.phase == COUNTED]
    return {
        **_rates(counted),
        **_quality(counted),
        **_latencies(counted),
        **_work(counted, evidence.audits),
        **_recovery(evidence.faults, evidence.audits),
        "dead_share": _dead_share(evidence, counted),
        **_machine(evidence.usage, len(counted)),
        "loss_requested": evidence.loss_requested,
        "loss_observed": evidence.loss_observed,
    }


def _rates(rows: Sequence[JobRow]) -> dict[str, float]:
    names = ("total_s", "throughput_per_s", "goodput_per_s", "goodput_bps", "text_bps")
    if not rows:
        return dict.fromkeys(names, math.nan)
    total_s = max(row.ended_s for row in rows) - min(row.began_s for row in rows)
    good = [row for row in rows if row.ok]
    values = (
        total_s,
        len(rows) / total_s,
        len(good) / total_s,
        8 * sum(row.size_bytes for row in good) / total_s,
        sum(row.text_bits for row in good) / total_s,
    )
    return dict(zip(names, values, strict=True))


def _quality(rows: Sequence[JobRow]) -> dict[str, float]:
    labelled = [row for row in rows if row.label is not None and row.class_id is not None]
    right = sum(row.class_id == row.label for row in labelled)
    return {
        "images": float(len(rows)),
        "lost_images": float(sum(not row.ok for row in rows)),
        "success_rate": sum(row.ok for row in rows) / len(rows) if rows else math.nan,
        "accuracy": right / len(labelled) if labelled else math.nan,
        "tries_per_image": sum(row.tries for row in rows) / len(rows) if rows else math.nan,
    }


def _latencies(rows: Sequence[JobRow]) -> dict[str, float]:
    good = [row for row in rows if row.ok]
    samples: dict[str, list[float]] = {
        "latency_ms": [row.latency_ms for row in good],
        "queue_ms": [row.queue_ms for row in good if row.queue_ms is not None],
        "compute_ms": [row.compute_ms for row in good if row.compute_ms is not None],
        "link_ms": [row.link_ms for row in good if row.link_ms is not None],
    }
    found = {f"{n}_p{q}": percentile(v, q) for n, v in samples.items() for q in PERCENTILES}
    whole = samples["latency_ms"]
    return {**found, "latency_ms_mean": sum(whole) / len(whole) if whole else math.nan}


def _work(rows: Sequence[JobRow], audits: Sequence[Audit]) -> dict[str, float]:
    """Leases beyond the first, and what was executed in vain."""
    ours = {row.job for row in rows if row.job is not None}
    about = [audit for audit in audits if audit.grant.job in ours]
    leases = Counter(audit.grant.job for audit in about)
    begun = Counter(audit.grant.job for audit in about if audit.started_s is not None)
    vain = [a for a in about if a.started_s is not None and a.grant.outcome != "succeeded"]
    return {
        "reassigned": float(sum(count > 1 for count in leases.values())),
        "duplicates": float(sum(count - 1 for count in begun.values())),
        "wasted_s": sum(a.grant.ended_s - (a.started_s or 0.0) for a in vain),
        "blamed": float(sum(audit.blamed for audit in about)),
    }


def _recovery(faults: Sequence[Happened], audits: Sequence[Audit]) -> dict[str, float]:
    """Detection: from a worker's fault to the first lease of its that is given up.
    Recovery: to the first success of that worker after the fault ended."""
    by_worker: dict[str, list[Audit]] = defaultdict(list)
    for audit in audits:
        by_worker[audit.grant.worker].append(audit)
    detected, recovered = [], []
    for fault in faults:
        leases = by_worker.get(f"worker-{fault.worker}", []) if not fault.skipped else []
        held = [
            a.grant.ended_s - fault.began_s
            for a in leases
            if a.grant.granted_s <= fault.began_s <= a.grant.ended_s
            and a.grant.outcome in ("lost", "expired")
        ]
        later = [
            a.grant.ended_s - fault.began_s
            for a in leases
            if a.grant.granted_s >= fault.began_s and a.grant.outcome == "succeeded"
        ]
        detected += [min(held)] if held else []
        recovered += [min(later)] if later else []
    return {
        "faults": float(sum(not fault.skipped for fault in faults)),
        "detection_s": sum(detected) / len(detected) if detected else math.nan,
        "recovery_s": sum(recovered) / len(recovered) if recovered else math.nan,
    }


def _dead_share(evidence: Evidence, rows: Sequence[JobRow]) -> float:
    """The part of all workers' time in which one was dead: from a crash to the first lease that
    its next life was granted."""
    if not rows or not evidence.workers:
        return math.nan
    began_s, ended_s = min(row.began_s for row in rows), max(row.ended_s for row in rows)
    dead_s = 0.0
    for fault in evidence.faults:
        if fault.skipped or fault.kind != FaultKind.CRASH:
            continue
        grants = [
            audit.grant.granted_s
            for audit in evidence.audits
            if audit.grant.worker == f"worker-{fault.worker}"
            and audit.grant.granted_s >= fault.ended_s
        ]
        back_s = min(grants, default=ended_s)
        dead_s += max(0.0, min(back_s, ended_s) - max(fault.began_s, began_s))
    return dead_s / (evidence.workers * (ended_s - began_s))


def _machine(usage: dict[str, Usage], images: int) -> dict[str, float]:
    found = {}
    for role in ("core", "web", "worker", "load"):
        used = usage.get(role)
        found[f"cpu_{role}_ms_per_image"] = (
            1000.0 * used.cpu_s / images if used is not None and images else math.nan
        )
        found[f"memory_{role}_mb"] = used.resident_bytes / 1e6 if used is not None else math.nan
    return found
