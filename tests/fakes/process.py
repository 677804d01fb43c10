"""One child process of a test: as an experiment starts it, with all that it said kept.

Every wait is woken by the output itself or by the process's end. Whatever happens in the
test, `finish` ends it by its process id; nothing is ever ended by name. If the tests
themselves are killed, the kernel ends it.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, Self

from experiments import processes
from experiments.errors import ProcessFailed

__all__ = ["Process", "ProcessFailed"]

# A child ends with the thread that started it, and tests start some from threads that end
# before them: this one lives as long as the tests do. The main thread does, too, and what it
# starts has its processors (`sched_setaffinity`).
_STARTER: Final = ThreadPoolExecutor(1, thread_name_prefix="starter")


class Process(processes.Process):
    """A running command whose combined output goes to `log_path`, line by line."""

    def __init__(
        self, name: str, argv: Sequence[str], *, log_path: Path, env: Mapping[str, str], cwd: Path
    ) -> None:
        self._lines: list[str] = []
        start = partial(super().__init__, name, argv, log_path=log_path, env=env, cwd=cwd)
        if threading.current_thread() is threading.main_thread():
            start()
        else:
            _STARTER.submit(start).result()

    def log(self) -> str:
        """Everything that it wrote so far, stdout and stderr together."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def sigstop(self) -> None:
        """Freeze it; its sockets stay open."""
        self.signal(signal.SIGSTOP)

    def sigcont(self) -> None:
        """Thaw it."""
        self.signal(signal.SIGCONT)

    def wait_line(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """First line of output that `pattern` is found in, waited for.

        Raises:
            ProcessFailed: it ended without one, or `timeout_s` passed; quotes the log.
        """
        compiled, seen = re.compile(pattern), 0

        def find() -> re.Match[str] | None:
            nonlocal seen
            fresh, seen = self._lines[seen:], len(self._lines)
            return next((match for line in fresh if (match := compiled.search(line))), None)

        return self.wait_for(find, f"a line like {pattern!r}", timeout_s)

    def finish(self, deadline: float | None = None) -> None:
        """Ask it to end, wait until `deadline` (`time.monotonic`), then kill its session."""
        left_s = processes.END_TIMEOUT_S if deadline is None else deadline - time.monotonic()
        self.end(max(0.0, left_s))

    def hear(self, line: str) -> None:
        """Keep the line."""
        self._lines.append(line)
        super().hear(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(5.0)
