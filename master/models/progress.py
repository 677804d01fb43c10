"""How far a download is: a bar on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from master.logs import fields

_log = logging.getLogger("lookout.models")
LINE_INTERVAL_S: Final = 5.0


class Progress(Protocol):
    """Told of every chunk."""

    def advance(self, count: int) -> None:
        """`count` more bytes are held."""


class _Lines:
    def __init__(self, name: str, held_bytes: int, size_bytes: int) -> None:
        self._name, self._held_bytes, self._size_bytes = name, held_bytes, size_bytes
        self._said_s = time.monotonic()

    def advance(self, count: int) -> None:
        self._held_bytes += count
        now = time.monotonic()
        if now - self._said_s >= LINE_INTERVAL_S:
            self._said_s = now
            self.say()

    def say(self) -> None:
        percent = round(100 * self._held_bytes / self._size_bytes, 1)
        _log.info(
            **fields(
                "downloading",
                file=self._name,
                held_bytes=self._held_bytes,
                size_bytes=self._size_bytes,
                percent=percent,
            )
        )


class _Bar:
    def __init__(self, bars: Bars, name: str, held_bytes: int, size_bytes: int) -> None:
        self._bars = bars
        self._task = bars.add_task(name, total=size_bytes, completed=held_bytes)

    def advance(self, count: int) -> None:
        self._bars.advance(self._task, count)


@contextlib.contextmanager
def progress_shown(name: str, held_bytes: int, size_bytes: int) -> Iterator[Progress]:
    """Show progress on stderr while the block runs."""
    if not sys.stderr.isatty():
        lines = _Lines(name, held_bytes, size_bytes)
        lines.say()
        yield lines
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield _Bar(bars, name, held_bytes, size_bytes)
