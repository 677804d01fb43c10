"""From a run's folder to its summary, pictures and report; may be done again at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from experiments import plots, published, report, summary
from experiments.errors import BadRun
from experiments.folder import Kept, RunFolder
from experiments.manifest import Manifest
from experiments.plots import Bar, Mark, Picture, Series
from experiments.scenario import Scenario
from experiments.scenario_file import Point, points
from experiments.statistics import Interval

SHOWN: Final = (
    "goodput_per_s",
    "throughput_per_s",
    "text_bps",
    "success_rate",
    "accuracy",
    "latency_ms_p50",
    "latency_ms_p99",
    "reassigned",
    "wasted_s",
    "detection_s",
    "recovery_s",
    "dead_share",
    "loss_requested",
    "loss_observed",
)
MACHINE: Final = ("core", "web", "worker", "load")
NOTE: Final = (
    "Bits of pixels as text count every channel of every pixel as a decimal number and a "
    "separator, as the published project sent them; images here travel compressed. Compare "
    "images/s where image sizes differ. docs/experiments.md defines every metric."
)
# A stream with more leases than this is drawn from its beginning only.
BARS_MAX: Final = 8000


def publish(folder: RunFolder) -> Path:
    """Write summary, plots and report; the report's path.

    Raises:
        BadRun: nothing is finished yet.
    """
    manifest, kept = folder.manifest(), folder.replicates()
    if not kept:
        raise BadRun(f"{folder.path} has no finished replicate: run it first")
    swept = points(manifest.scenario)
    folder.write_summary(summary.lines(kept, swept, manifest.seed))
    pictures = _pictures(manifest, kept, swept)
    _save(folder.path / "plots", [picture for picture, _ in pictures])
    scenario = swept[0].scenario
    content = report.Content(
        title=scenario.title + (" (quick: not to cite)" if manifest.quick else ""),
        question=scenario.question,
        pictures=pictures,
        violations=[f"{one.point}, {one.replicate}: {v}" for one in kept for v in one.violations],
        jobs=int(sum(one.metric("images") for one in kept)),
        tables=[
            *_beside(manifest, kept, swept),
            _numbers(manifest, kept, swept),
            _machine(manifest, kept, swept),
        ],
        notes=[NOTE],
        manifest=msgspec.to_builtins(manifest),
    )
    path = folder.path / "report.html"
    path.write_text(report.render(content), encoding="utf-8")
    return path


def _pictures(
    manifest: Manifest, kept: list[Kept], swept: Sequence[Point]
) -> list[tuple[Picture, str]]:
    scenario, seed = swept[0].scenario, manifest.seed
    if scenario.sweep is None:
        # One point is no line: what happened comes first, then how replicates differ.
        return [*_stream(kept), *_by_replicate(scenario, kept)]
    x = [point.value for point in swept]
    axis = scenario.sweep.label or scenario.sweep.field
    labels = [point.label for point in swept] if not _is_numeric(swept) else None

    def series(name: str, metric: str) -> Series:
        at = [summary.of_point(kept, point.label, metric, seed) for point in swept]
        return Series(name, x, at)

    ours = series("Lookout, here", scenario.metric)
    lines = [ours, *_published_series(manifest, swept)]
    main = plots.sweep(scenario.title, axis, scenario.metric, lines, labels)
    replicates = max(at.n for at in ours.y)
    caption = f"Means of {replicates} replicates with 95 % intervals (BCa bootstrap)."
    latencies = [series(f"p{q}", f"latency_ms_p{q}") for q in (50, 90, 99)]
    latency = plots.sweep("How long an image takes", axis, "latency_ms", latencies, labels)
    return [(main, caption), (latency, "Latency by percentile."), *_stream(kept)]


def _by_replicate(scenario: Scenario, kept: list[Kept]) -> list[tuple[Picture, str]]:
    if len(kept) < 2:
        return []
    ordered = sorted(kept, key=lambda one: one.replicate)
    x = [float(one.replicate) for one in ordered]

    def series(name: str, metric: str) -> Series:
        values = [one.metric(metric) for one in ordered]
        return Series(name, x, [Interval(value, math.nan, math.nan, 1) for value in values])

    main = plots.sweep(
        scenario.title, "replicate", scenario.metric, [series("Lookout, here", scenario.metric)]
    )
    latencies = [series(f"p{q}", f"latency_ms_p{q}") for q in (50, 90, 99)]
    latency = plots.sweep("How long an image takes", "replicate", "latency_ms", latencies)
    caption = "One value a replicate."
    return [(main, caption), (latency, f"Latency by percentile. {caption}")]


def _is_numeric(swept: Sequence[Point]) -> bool:
    return all(point.label != "-" and _number(point.label) is not None for point in swept)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _published_series(manifest: Manifest, swept: Sequence[Point]) -> list[Series]:
    scenario = swept[0].scenario
    if scenario.published is None:
        return []
    table, column = published.load(scenario.published.table), scenario.published.column
    has_ci = f"ci95_{column.rpartition('_')[2]}" in table.columns
    found = []
    for point in swept:
        mean = table.value(point.value, column)
        half = table.value(point.value, f"ci95_{column.rpartition('_')[2]}") if has_ci else math.nan
        found.append((point.value, Interval(mean, mean - half, mean + half, 0)))
    known = [(x, at) for x, at in found if math.isfinite(at.mean)]
    if not known:
        return []
    return [Series("published", [x for x, _ in known], [at for _, at in known], is_ours=False)]


def _stream(kept: list[Kept]) -> list[tuple[Picture, str]]:
    """The replicate in which most went wrong."""
    worst = max(kept, key=lambda one: (len([f for f in one.faults if not f.skipped]), one.point))
    if not worst.leases:
        return []
    leases = sorted(worst.leases, key=lambda lease: lease.granted_s)[:BARS_MAX]
    bars, seen = [], set()
    for lease in leases:
        repeat = lease.job in seen
        seen.add(lease.job)
        bars.append(
            Bar(
                lease.worker,
                lease.granted_s,
                lease.began_s,
                lease.ended_s,
                lease.outcome == "succeeded",
                repeat,
            )
        )
    end_s = max(bar.ended_s for bar in bars) if len(bars) == BARS_MAX else math.inf
    marks = [
        Mark(f"worker-{f.worker}" if f.worker else "", f.kind, f.began_s, f.ended_s)
        for f in worst.faults
        if not f.skipped and f.began_s <= end_s
    ]
    point = f"point {worst.point}, " if worst.point != "-" else ""
    title = f"Task stream of {point}replicate {worst.replicate}"
    caption = "Each bar is one lease; hatched ones were in vain, dark ones did the work again."
    return [(plots.task_stream(title, bars, marks), caption)]


def _numbers(manifest: Manifest, kept: list[Kept], swept: Sequence[Point]) -> report.Table:
    known = [name for name in SHOWN if any(math.isfinite(one.metric(name)) for one in kept)]
    rows = [
        [
            point.label,
            *(report.shown(summary.of_point(kept, point.label, n, manifest.seed)) for n in known),
        ]
        for point in swept
    ]
    return report.Table(
        "Numbers", ["point", *known], rows, "Mean [95 % interval]; all metrics: summary.csv."
    )


def _machine(manifest: Manifest, kept: list[Kept], swept: Sequence[Point]) -> report.Table:
    names = [f"cpu_{role}_ms_per_image" for role in MACHINE]
    names += [f"memory_{role}_mb" for role in MACHINE]
    rows = [
        [
            point.label,
            *(
                report.number(summary.of_point(kept, point.label, name, manifest.seed).mean)
                for name in names
            ),
        ]
        for point in swept
    ]
    columns = [name.replace("_", " ") for name in names]
    return report.Table("CPU and memory of the processes", ["point", *columns], rows)


def _beside(manifest: Manifest, kept: list[Kept], swept: Sequence[Point]) -> list[report.Table]:
    """Ours and the published numbers, point by point."""
    scenario = swept[0].scenario
    if scenario.published is None:
        return []
    table = published.load(scenario.published.table)
    theirs = table.columns[1:]
    rows = []
    for point in swept:
        ours = summary.of_point(kept, point.label, scenario.metric, manifest.seed)
        speed = summary.of_point(kept, point.label, "goodput_per_s", manifest.seed)
        there = table.value(point.value, scenario.published.column)
        times = ours.mean / there if there and math.isfinite(there) else math.nan
        cells = [table.cell(point.value, column) for column in theirs]
        rows.append(
            [point.label, report.shown(ours), report.shown(speed), *cells, report.number(times)]
        )
    columns = [
        scenario.sweep.label if scenario.sweep else "point",
        f"ours: {scenario.metric}",
        "ours: images/s",
        *(f"published: {column}" for column in theirs),
        "ours / published",
    ]
    return [report.Table("Beside the published table", columns, rows, " ".join(table.notes))]


def _save(folder: Path, pictures: Sequence[Picture]) -> None:
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name}.png").write_bytes(picture.png)
        (folder / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
