"""The two pictures of a run: confusion matrix and learning curve, as PNG.

Drawn on figures of their own, without pyplot: no global state, no display.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worker.statedict import replacing
from worker.train.loop import EpochResult
from worker.train.report import Report

NUMBERED_CLASSES_MAX = 20
NAMED_CLASSES_MAX = 60
_TRAIN, _VAL, _ACCURACY = "#8a8a8a", "#d1495b", "#00509d"


def draw_confusion(report: Report, path: Path) -> None:
    """Rows are true classes, columns what they were taken for; shade is the row's share."""
    counts = np.array(report.confusion)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(14.0, 3.5 + 0.45 * len(counts))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    _name_classes(axes, [each.name for each in report.classes])
    if len(counts) <= NUMBERED_CLASSES_MAX:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "#222222"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, size=8)
    axes.set(xlabel="taken for", ylabel="is")
    axes.set_title(
        f"{report.checkpoint} on {report.data}\n"
        f"{report.correct:,} of {report.images:,} right ({report.accuracy:.1%})"
    )
    _save(figure, path)


def draw_learning_curve(history: list[EpochResult], path: Path) -> None:
    """Loss and held-out accuracy by epoch; a dotted line where the input size changes."""
    epochs = [each.epoch for each in history]
    figure = Figure(figsize=(9, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    loss.plot(epochs, [e.train_loss for e in history], color=_TRAIN, label="training (augmented)")
    loss.plot(epochs, [e.val_loss for e in history], color=_VAL, label="held out, averaged weights")
    loss.set(xlabel="epoch", ylabel="cross-entropy")
    loss.legend(frameon=False)
    values = [100 * each.val_accuracy for each in history]
    accuracy.plot(epochs, values, color=_ACCURACY, marker=".")
    accuracy.set(xlabel="epoch", ylabel="held-out top-1 (%)")
    best = int(np.argmax(values))
    accuracy.set_title(f"best {values[best]:.1f} % in epoch {epochs[best]}", size=10)
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _mark_sizes(axes, history)
    _save(figure, path)


def _mark_sizes(axes: Axes, history: list[EpochResult]) -> None:
    previous = 0
    for each in history:
        if each.input_px != previous:
            axes.axvline(each.epoch, color="#999999", linestyle=":", linewidth=1)
            axes.annotate(
                f" {each.input_px} px",
                (each.epoch, 0.02),
                xycoords=("data", "axes fraction"),
                color="#666666",
                size=8,
            )
        previous = each.input_px


def _name_classes(axes: Axes, names: list[str]) -> None:
    if len(names) > NAMED_CLASSES_MAX:
        return
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
