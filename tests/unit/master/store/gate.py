"""A real `fdatasync` that a test can hold up, count and make fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class Gate:
    """Pass as `StoreConfig.sync`. Open by default; `close()` holds the writer in its next sync."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_next: OSError | None = None
        self.before: Callable[[], None] | None = None
        self.after: Callable[[int], None] | None = None
        self.reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def __call__(self, fd: int) -> None:
        self.calls += 1
        self.reached.set()
        assert self._open.wait(20), "the test never opened the gate"
        if self.before is not None:
            self.before()
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        os.fdatasync(fd)
        if self.after is not None:
            self.after(fd)

    def close(self) -> None:
        """Hold whoever syncs next."""
        self._open.clear()
        self.reached.clear()

    def open(self) -> None:
        """Let them pass."""
        self._open.set()
