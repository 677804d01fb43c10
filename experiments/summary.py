"""From finished replicates to one line for each point and metric. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from experiments.scenario_file import Point
from experiments.statistics import Interval, Ratio, interval, ratio

# Shown first, in this order; the others follow by name.
MAIN: Final = (
    "goodput_per_s",
    "throughput_per_s",
    "goodput_bps",
    "text_bps",
    "total_s",
    "success_rate",
    "accuracy",
    "latency_ms_p50",
    "latency_ms_p90",
    "latency_ms_p99",
    "reassigned",
    "duplicates",
    "wasted_s",
    "detection_s",
    "recovery_s",
)


class Replicated(Protocol):
    """One finished replicate."""

    @property
    def point(self) -> str:
        """Label of its point."""

    @property
    def replicate(self) -> int:
        """Its number."""

    @property
    def metrics(self) -> dict[str, float | None]:
        """Its numbers."""

    def metric(self, name: str) -> float:
        """One number, NaN where it was not measured."""


def of_point(kept: Sequence[Replicated], label: str, metric: str, seed: int) -> Interval:
    """A metric at a point, over its replicates."""
    return interval(_values(kept, label, metric), seed, f"{metric}@{label}")


def lines(kept: Sequence[Replicated], points: Sequence[Point], seed: int) -> list[dict[str, Any]]:
    """Every metric at every point, as the summary files hold them."""
    names = metric_names(kept)
    found = []
    for point in points:
        for name in names:
            at = of_point(kept, point.label, name, seed)
            found.append(
                {
                    "point": point.label,
                    "metric": name,
                    "mean": at.mean,
                    "low95": at.low,
                    "high95": at.high,
                    "replicates": at.n,
                }
            )
    return found


def metric_names(kept: Sequence[Replicated]) -> list[str]:
    """All metrics, the main ones first."""
    known = {name for one in kept for name in one.metrics}
    return [n for n in MAIN if n in known] + sorted(known - set(MAIN))


def compare(
    a: Sequence[Replicated], b: Sequence[Replicated], labels: Sequence[str], metric: str, seed: int
) -> dict[str, Ratio]:
    """B over A at each point, paired by replicate."""
    return {
        label: ratio(_values(a, label, metric), _values(b, label, metric), seed, metric)
        for label in labels
    }


def _values(kept: Sequence[Replicated], label: str, metric: str) -> list[float]:
    ordered = sorted((one for one in kept if one.point == label), key=lambda one: one.replicate)
    return [one.metric(metric) for one in ordered]
