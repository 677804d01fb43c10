"""One child process of a test: its own session, its output in a file, its end certain.

Owns starting, signalling and reading the output of a process. Whatever happens
in the test, `finish` ends it by its process id; nothing is ever ended by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

# One line on stdout says that a process serves, and where: `LOOKOUT core {"listen": …}`.
_ANNOUNCEMENT = re.compile(r"^LOOKOUT (?P<kind>\w+) (?P<fields>\{.*\})\s*$")


class ProcessFailed(AssertionError):
    """A process ended, or said nothing, before it did what the test waits for."""


class Process:
    """A running command whose combined output goes to `log_path`, line by line.

    Every wait is woken by the output itself or by the process's end.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str],
        cwd: Path,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self.killed = False
        self._asked_to_end = False
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._popen = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"log-{name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, which is also its session and its process group."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """True until the process itself ended (its children don't count)."""
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal, None while it runs."""
        return self._popen.poll()

    def log(self) -> str:
        """Everything that it wrote so far, stdout and stderr together."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, if it still runs."""
        # Popen polls first, so that a recycled id is never hit.
        self._popen.send_signal(number)

    def kill9(self) -> None:
        """SIGKILL to the process alone, as the kernel's out-of-memory killer would; reaps it."""
        self.killed = True
        self.signal(signal.SIGKILL)
        self.wait(timeout_s=10.0)

    def sigstop(self) -> None:
        """Freeze it; its sockets stay open."""
        self.signal(signal.SIGSTOP)

    def sigcont(self) -> None:
        """Thaw it."""
        self.signal(signal.SIGCONT)

    def term(self) -> None:
        """Ask it to drain and exit; does not wait."""
        self._asked_to_end = True
        self.signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        """Exit status once it ended.

        Raises:
            ProcessFailed: it still runs after `timeout_s`.
        """
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} still runs after {timeout_s} s") from None

    def announcement(self, kind: str, *, timeout_s: float) -> dict[str, Any]:
        """Fields of its `LOOKOUT <kind> {…}` line, waited for.

        Raises:
            ProcessFailed: it ended without one, or `timeout_s` passed; quotes the log.
        """
        match = self._await_line(
            lambda line: m if (m := _ANNOUNCEMENT.match(line)) and m["kind"] == kind else None,
            f"its line 'LOOKOUT {kind}'",
            timeout_s,
        )
        fields: dict[str, Any] = json.loads(match["fields"])
        return fields

    def wait_line(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """First line of output that `pattern` is found in, waited for.

        Raises:
            ProcessFailed: it ended without one, or `timeout_s` passed; quotes the log.
        """
        compiled = re.compile(pattern)
        return self._await_line(compiled.search, f"a line like {pattern!r}", timeout_s)

    def finish(self, deadline: float) -> None:
        """Ask it to end, wait until `deadline` (`time.monotonic`), then kill its session."""
        if self.alive:
            # A second SIGTERM would force the end that the first one drains towards.
            if not self._asked_to_end:
                self.term()
            self.sigcont()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(max(0.0, deadline - time.monotonic()))
        if self.alive:
            self.killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait(10.0)

    def _await_line(self, find: Any, what: str, timeout_s: float) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
        seen = 0
        with self._news:
            while True:
                for line in self._lines[seen:]:
                    if (match := find(line)) is not None:
                        found: re.Match[str] = match
                        return found
                seen = len(self._lines)
                left_s = deadline - time.monotonic()
                if self._ended or left_s <= 0:
                    raise ProcessFailed(self._complaint(what, timeout_s))
                self._news.wait(left_s)

    def _complaint(self, what: str, timeout_s: float) -> str:
        how = "ended" if self._ended else f"said nothing for {timeout_s} s"
        tail = "".join(self._lines[-40:])
        return f"{self.name} {how} before {what}; its log ends with:\n{tail}"

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self.log_path.open("ab", buffering=0) as log:
            for raw in self._popen.stdout:
                log.write(raw)
                with self._news:
                    self._lines.append(raw.decode("utf-8", errors="replace"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish(time.monotonic() + 5.0)
