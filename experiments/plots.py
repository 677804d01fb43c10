"""The pictures of a run, as PNG and SVG, readable in greyscale: shape and dash carry meaning,
colour only helps. Error bars are 95 % intervals."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.statistics import Interval

WIDTH_IN: Final = 7.2
HEIGHT_IN: Final = 4.3
DPI: Final = 150
# Beyond this ratio of largest to smallest a linear axis hides the small ones.
LOG_RATIO: Final = 30.0
TICKS_MAX: Final = 11
# More bars than this are drawn without edges, which would hide their colour.
EDGED_BARS_MAX: Final = 150
INK: Final = "#1a1a1a"
OURS: Final = "#0b5a8a"
THEIRS: Final = "#c26a00"
STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "axes.edgecolor": "#666666",
    "legend.frameon": False,
    "svg.hashsalt": "lookout",
    "svg.fonttype": "none",
}
UNITS: Final = {
    "goodput_per_s": "goodput, images/s",
    "throughput_per_s": "throughput, images/s",
    "goodput_bps": "goodput, bit/s of the files",
    "text_bps": "throughput, bit/s of pixels as text",
    "total_s": "time for all images, s",
    "latency_ms": "latency, ms",
    "success_rate": "fraction of images answered",
    "accuracy": "accuracy",
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot: where, how much, and with what interval."""

    name: str
    x: Sequence[float]
    y: Sequence[Interval]
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawn figure in both formats."""

    name: str
    png: bytes
    svg: str


def sweep(
    title: str,
    axis: str,
    metric: str,
    series: Sequence[Series],
    labels: Sequence[str] | None = None,
) -> Picture:
    """A metric along the axis of a sweep; `labels` for points that are words."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        axes = figure.subplots()
        for index, line in enumerate(series):
            _line(axes, line, index)
        axes.set_xlabel(axis)
        axes.set_ylabel(UNITS.get(metric, metric))
        axes.set_title(title, loc="left", fontsize=12)
        _scale(axes, series)
        if labels is not None and series:
            axes.set_xticks(list(series[0].x), list(labels))
        elif series and len(series[0].x) <= TICKS_MAX:
            axes.set_xticks(list(series[0].x), [f"{x:g}" for x in series[0].x])
        if len(series) > 1:
            axes.legend()
        return _picture("main" if metric != "latency_ms" else "latency", figure)


def _line(axes: Axes, line: Series, index: int) -> None:
    middle = [at.mean for at in line.y]
    below = [_bar(at.mean - at.low) for at in line.y]
    above = [_bar(at.high - at.mean) for at in line.y]
    marker, dash = [("o", "-"), ("s", "--"), ("^", ":"), ("D", "-.")][index % 4]
    axes.errorbar(
        list(line.x),
        middle,
        yerr=[below, above],
        label=line.name,
        marker=marker,
        linestyle=dash,
        color=OURS if line.is_ours else THEIRS,
        markerfacecolor=OURS if line.is_ours else "white",
        markersize=7,
        capsize=4,
        linewidth=1.6,
    )


def _bar(length: float) -> float:
    return max(0.0, length) if math.isfinite(length) else 0.0


def _scale(axes: Axes, series: Sequence[Series]) -> None:
    means = [at.mean for line in series for at in line.y if math.isfinite(at.mean)]
    positive = [mean for mean in means if mean > 0]
    if positive and len(positive) == len(means) and max(means) > LOG_RATIO * min(means):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


@dataclass(frozen=True, slots=True)
class Bar:
    """One lease on the task stream: seconds after the load began."""

    worker: str
    granted_s: float
    began_s: float | None
    ended_s: float
    succeeded: bool
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """One fault; `worker` is empty for the core."""

    worker: str
    kind: str
    began_s: float
    ended_s: float


def task_stream(title: str, bars: Sequence[Bar], marks: Sequence[Mark]) -> Picture:
    """Workers against time: what each did, what was lost, what was done again, what broke."""
    workers = sorted({bar.worker for bar in bars} | {m.worker for m in marks if m.worker})
    rows = {name: number for number, name in enumerate(reversed(workers))}
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        height_in = 1.9 + 0.55 * len(rows)
        figure = Figure(figsize=(WIDTH_IN + 1.6, height_in), layout="constrained")
        axes = figure.subplots()
        for mark in marks:
            _mark(axes, mark, rows)
        edge = {"linewidth": 0.0} if len(bars) > EDGED_BARS_MAX else {}
        for kind, look in _KINDS.items():
            of_kind = [bar for bar in bars if _kind(bar) == kind]
            _bars(axes, kind, {**look, **(edge if "hatch" not in look else {})}, of_kind, rows)
        axes.set_yticks(list(rows.values()), list(rows))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds after the load began")
        axes.set_title(title, loc="left", fontsize=12)
        figure.legend(loc="outside lower center", ncols=5)
        return _picture("stream", figure)


# A worker died or fell silent with it, or another one (a hedge, a late result) was first.
IN_VAIN: Final = "in vain: lost, or another was first"
_KINDS: Final[dict[str, dict[str, Any]]] = {
    "done": {"facecolor": "#9fb8c8", "edgecolor": "#4a6577", "linewidth": 0.4},
    "done again, after a loss": {"facecolor": "#14405c", "edgecolor": "#14405c", "linewidth": 0.4},
    IN_VAIN: {"facecolor": "white", "edgecolor": INK, "linewidth": 0.8, "hatch": "//////"},
}
_FAULTS: Final = {
    "crash": ("x", "killed"),
    "hang": ("s", "hung"),
    "slow": ("v", "slowed"),
    "cut": ("|", "cut off"),
    "core-crash": ("*", "core killed"),
}


def _kind(bar: Bar) -> str:
    if not bar.succeeded:
        return IN_VAIN
    return "done again, after a loss" if bar.is_repeat else "done"


def _bars(
    axes: Axes, kind: str, look: dict[str, Any], bars: Sequence[Bar], rows: dict[str, int]
) -> None:
    if not bars:
        return
    starts = [bar.granted_s if bar.began_s is None else bar.began_s for bar in bars]
    axes.barh(
        [rows[bar.worker] for bar in bars],
        [max(0.0, bar.ended_s - start) for bar, start in zip(bars, starts, strict=True)],
        left=starts,
        height=0.56,
        label=kind,
        **look,
    )


def _mark(axes: Axes, mark: Mark, rows: dict[str, int]) -> None:
    symbol, text = _FAULTS.get(mark.kind, ("d", mark.kind))
    known = axes.get_legend_handles_labels()[1]
    label = None if text in known else text
    top = len(rows) - 0.45
    if not mark.worker:
        axes.axvspan(mark.began_s, mark.ended_s, color="#e8d8c0", zorder=0)
        axes.plot(
            [mark.began_s], [top], symbol, color=INK, markersize=9, label=label, clip_on=False
        )
        return
    row = rows[mark.worker]
    axes.barh(
        [row],
        [mark.ended_s - mark.began_s],
        left=[mark.began_s],
        height=0.86,
        color="#e9e9e9",
        zorder=0,
    )
    axes.plot([mark.began_s], [row + 0.36], symbol, color="#b00020", markersize=7, label=label)


def _picture(name: str, figure: Figure) -> Picture:
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=DPI)
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return Picture(name, png.getvalue(), svg.getvalue())
