"""What `classify` shows: rows on stdout, progress and messages on stderr.

The bar is drawn where both are a terminal or stderr alone is; redirected output
never holds it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from client.job import Job
from client.journey import Retry
from client.output import printable
from client.sources import walk

_TEXT_CHARS = 60


class Rate(ProgressColumn):
    """Images per second, over the last seconds."""

    def render(self, task: Task) -> Text:
        """`12.3/s`, or nothing while it isn't known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "")


class Display:
    """Rows and progress of one run; a context manager. Any thread may tell it of progress."""

    def __init__(self, *, quiet: bool) -> None:
        self._progress: Progress | None = None
        self._quiet = quiet
        self._told: set[str] = set()
        self._over = threading.Event()
        if not quiet and sys.stderr.isatty():
            # One console for bar and rows where both are on the terminal: it moves the bar.
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                Rate(),
                TimeRemainingColumn(),
                console=Console(stderr=not sys.stdout.isatty()),
                redirect_stdout=False,
                redirect_stderr=True,
                transient=True,
                refresh_per_second=4,
            )
            self._task = self._progress.add_task("classifying", total=None)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._progress is not None:
            self._progress.stop()

    def row(self, text: str) -> None:
        """Write rows to stdout at once.

        Raises:
            OSError: stdout takes no more; `BrokenPipeError` where nobody reads it.
        """
        if self._progress is not None and sys.stdout.isatty():
            self._progress.console.print(
                text, end="", markup=False, highlight=False, emoji=False, soft_wrap=True
            )
            return
        sys.stdout.write(text)
        sys.stdout.flush()

    def ended(self) -> None:
        """One image more has ended."""
        if self._progress is not None:
            self._progress.update(self._task, advance=1, description="classifying")

    def retry(self, retry: Retry) -> None:
        """A try failed: say why nothing moves."""
        self._tell("retry", f"{retry.reason}; trying again")

    def wait(self, job: Job) -> None:
        """A job takes longer than a request waits: say what to look at."""
        self._tell("wait", f"{job.id} is {job.state} and goes on waiting; is a worker ready?")

    def count(self, named: int, folders: Iterable[Path], *, recursive: bool) -> None:
        """Find out how many images there are while they are being sent: a second walk."""
        if self._progress is None:
            return
        arguments = (named, list(folders), recursive)
        threading.Thread(target=self._count, args=arguments, daemon=True).start()

    def _tell(self, kind: str, text: str) -> None:
        """In the bar, where it stands until something moves; else on stderr, once a kind."""
        if self._progress is not None:
            shown = printable(text)[:_TEXT_CHARS]
            self._progress.update(self._task, description=shown)
        elif not self._quiet and kind not in self._told:
            self._told.add(kind)
            sys.stderr.write(f"classify: {printable(text)}\n")

    def _count(self, named: int, folders: list[Path], recursive: bool) -> None:
        total = named
        for folder in folders:
            for _ in walk(folder, recursive=recursive):
                total += 1
                if self._over.is_set():
                    return
        if self._progress is not None:
            self._progress.update(self._task, total=total)
