"""Reports: the numbers by hand, the pictures by their size and ink."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from worker.train.display import Display
from worker.train.loop import EpochResult
from worker.train.plots import draw_confusion, draw_learning_curve
from worker.train.report import Report, make_report

CLASSES = ("cat", "dog", "owl")


def report() -> Report:
    """Cats: 2 right, 1 taken for a dog. Dogs: 1 right. Owls: none there."""
    labels = np.array([0, 0, 0, 1], np.int64)
    logits = np.array([[2, 1, 0], [3, 1, 0], [0, 4, 1], [0, 1, 0]], np.float32)
    return make_report("model", "data", CLASSES, labels, logits)


def epoch(number: int, accuracy: float, input_px: int) -> EpochResult:
    return EpochResult(
        epoch=number,
        progress=number / 4,
        input_px=input_px,
        train_loss=2 / number,
        val_loss=1.5 / number,
        val_accuracy=accuracy,
        elapsed_s=60.0 * number,
    )


def ink(path: Path) -> float:
    """Part of the picture that is not white."""
    with Image.open(path) as image:
        assert min(image.size) > 200
        return float((np.asarray(image.convert("L")) < 250).mean())


def test_counts_by_hand() -> None:
    made = report()
    assert made.confusion == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (made.images, made.correct, made.accuracy, made.top5) == (4, 3, 0.75, 1.0)
    assert [each.images for each in made.classes] == [3, 1, 0]
    assert [each.recall for each in made.classes] == pytest.approx([2 / 3, 1, 0])
    assert [each.precision for each in made.classes] == pytest.approx([1, 0.5, 0])


def test_top5_counts_the_five_best() -> None:
    logits = np.tile(np.arange(7, dtype=np.float32), (7, 1))
    made = make_report("m", "d", tuple("abcdefg"), np.arange(7), logits)
    assert made.top5 == pytest.approx(5 / 7)


@pytest.mark.parametrize("count", [3, 40, 80])
def test_the_confusion_matrix_is_drawn_for_few_and_many_classes(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, count, 500)
    names = tuple(f"class {i}" for i in range(count))
    logits = rng.normal(size=(500, count)).astype(np.float32)
    draw_confusion(make_report("m", "d", names, labels, logits), tmp_path / "c.png")
    assert 0.005 < ink(tmp_path / "c.png") < 0.9


def test_the_learning_curve_is_drawn_from_one_epoch_on(tmp_path: Path) -> None:
    history = [epoch(1, 0.5, 32), epoch(2, 0.7, 32), epoch(3, 0.8, 48)]
    for length in (1, 3):
        draw_learning_curve(history[:length], tmp_path / "l.png")
        assert ink(tmp_path / "l.png") > 0.005
    assert [path.name for path in tmp_path.iterdir()] == ["l.png"]


def test_off_a_terminal_progress_is_lines_with_the_time_left() -> None:
    console = Console(record=True, width=120, force_terminal=False, quiet=False)
    now_s = iter([0.0, 10.0, 70.0, 100.0])
    display = Display(console, lambda: next(now_s))
    with display.training(0.2) as on_step:
        for part in (0.25, 0.30, 0.35):
            on_step(part, 1.234)
    display.epoch(epoch(2, 0.7, 32))
    display.report(report())
    lines = console.export_text().splitlines()
    assert " ".join(lines[0].split()) == "30.0% loss 1.234 about 8 min left"
    assert "accuracy 70.00%" in lines[1]
    assert "3 of 4 right, 75.00% top-1" in lines[2]
    assert sum("owl" in line for line in lines) == 1
