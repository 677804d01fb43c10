"""What a person sees of a run: bars with the time left on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from worker.train.loop import EpochResult
from worker.train.report import Report

LINE_EVERY_S = 60.0
CLASSES_SHOWN_MAX = 60


class Display:
    """Writes to `console`; `clock` returns monotonic seconds."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar over `total` things; call what is given for each."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with self._progress(*columns) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)

    @contextmanager
    def training(self, done: float) -> Iterator[Callable[[float, float], None]]:
        """A bar over the run, begun at the `done` part; call with (progress, loss) per step."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        lines = _Lines(self.say, self._clock, done)
        with self._progress(*columns) as progress:
            task = progress.add_task("training", total=1.0)
            progress.update(task, completed=done)

            def on_step(part: float, loss: float) -> None:
                progress.update(task, completed=part, description=f"training, loss {loss:.3f}")
                if not self._console.is_terminal:
                    lines.step(part, loss)

            yield on_step

    def epoch(self, result: EpochResult) -> None:
        """One line per epoch."""
        self.say(
            f"epoch {result.epoch:3d}  {result.progress:6.1%}  {result.input_px:3d} px"
            f"  loss {result.train_loss:.3f}  held out: loss {result.val_loss:.3f},"
            f" accuracy {result.val_accuracy:.2%}  ({result.elapsed_s / 60:.1f} min)"
        )

    def report(self, report: Report) -> None:
        """Overall and per-class figures."""
        self.say(
            f"{report.checkpoint} on {report.data}: {report.correct:,} of {report.images:,} right,"
            f" {report.accuracy:.2%} top-1, {report.top5:.2%} top-5"
        )
        if len(report.classes) > CLASSES_SHOWN_MAX:
            return
        table = Table("class", "images", "recall", "precision", box=None)
        for each in report.classes:
            row = (each.name, str(each.images), f"{each.recall:.1%}", f"{each.precision:.1%}")
            table.add_row(*row)
        self._console.print(table)

    def _progress(self, *columns: ProgressColumn) -> Progress:
        """Off a terminal nothing is drawn: `_Lines` and `epoch` speak there."""
        return Progress(
            *columns,
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            speed_estimate_period=120.0,
        )


class _Lines:
    """Now and then a line with the time left, for logs."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float], done: float) -> None:
        self._say = say
        self._clock = clock
        self._start = (clock(), done)
        self._last_s = self._start[0]

    def step(self, part: float, loss: float) -> None:
        now_s = self._clock()
        if now_s - self._last_s < LINE_EVERY_S:
            return
        self._last_s = now_s
        started_s, done = self._start
        left_s = (1 - part) * (now_s - started_s) / max(1e-9, part - done)
        self._say(f"  {part:6.1%}  loss {loss:.3f}  about {left_s / 60:.0f} min left")
