"""One process that a run starts: its own session, its output in a file, its end certain.

Owns starting, signalling, reading announcements and measuring. Nothing is ever
ended by name: a process is known by its id, and a killed runner takes its
children along (`PR_SET_PDEATHSIG`, which follows the thread that starts them: start
processes from the main one).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

from experiments.errors import ProcessFailed
from experiments.events import Usage

# One line on stdout says what a process has reached: `LOOKOUT core {"listen": …}`.
_ANNOUNCEMENT: Final = re.compile(r"^LOOKOUT (?P<kind>\w+) (?P<fields>\{.*\})\s*$")
_PR_SET_PDEATHSIG: Final = 1
TAIL_LINES: Final = 30
END_TIMEOUT_S: Final = 15.0
# Whoever looks for children reads every process of the machine.
FAMILY_AGE_S: Final = 10.0
_LIBC: Final = ctypes.CDLL(None)

Found = TypeVar("Found")


class Process:
    """A running command whose output goes to `log_path`, line by line."""

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
        self.usage = Usage(0.0, 0)
        self._family: list[psutil.Process] = []
        self._family_until = 0.0
        self.killed = False
        self.log_path = log_path
        self._asked_to_end = False
        self._said: list[tuple[str, dict[str, Any]]] = []
        self._tail: list[str] = []
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
            # One system call, no lock is taken: safe between fork and exec.
            preexec_fn=_die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, name=f"log-{name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, which is also its session."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """True until it ended."""
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal, None while it runs."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs; a recycled id is never hit."""
        self._popen.send_signal(number)

    def kill9(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.killed = True
        self.look()
        self.signal(signal.SIGKILL)
        self._popen.wait(END_TIMEOUT_S)

    def term(self) -> None:
        """Ask it to drain and exit; does not wait."""
        self._asked_to_end = True
        self.signal(signal.SIGTERM)

    def look(self) -> None:
        """Note what it and its children used up to now: the web server serves from children."""
        try:
            if time.monotonic() >= self._family_until:
                parent = psutil.Process(self.pid)
                self._family = [parent, *parent.children(recursive=True)]
                self._family_until = time.monotonic() + FAMILY_AGE_S
            times = [one.cpu_times() for one in self._family]
            resident = max(int(one.memory_info().rss) for one in self._family)
        except psutil.Error:
            self._family_until = 0.0  # one has ended: the next look finds who is left
            return
        reaped_s = times[0].children_user + times[0].children_system
        cpu_s = reaped_s + sum(one.user + one.system for one in times)
        self.usage = Usage(float(cpu_s), max(self.usage.resident_bytes, resident))

    def announcement(self, kind: str, timeout_s: float) -> dict[str, Any]:
        """Fields of its `LOOKOUT <kind> {…}` line, waited for.

        Raises:
            ProcessFailed: it ended without one, or `timeout_s` passed; quotes its log.
        """
        return self.wait_for(lambda: self._last(kind), f"its line 'LOOKOUT {kind}'", timeout_s)

    def wait_for(self, find: Callable[[], Found | None], what: str, timeout_s: float) -> Found:
        """What `find` gives, which is asked again after each line.

        Raises:
            ProcessFailed: it ended without, or `timeout_s` passed; quotes its log.
        """
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                if (found := find()) is not None:
                    return found
                left_s = deadline - time.monotonic()
                if self._ended or left_s <= 0:
                    raise ProcessFailed(self._complaint(what, timeout_s))
                self._news.wait(left_s)

    def last(self, kind: str) -> dict[str, Any] | None:
        """Fields of the latest announcement of this kind, if there was one."""
        with self._news:
            return self._last(kind)

    def _last(self, kind: str) -> dict[str, Any] | None:
        return next((fields for said, fields in self._said if said == kind), None)

    def wait(self, timeout_s: float) -> int:
        """Exit status once it ended and its output was read.

        Raises:
            ProcessFailed: it still runs after `timeout_s`.
        """
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} still runs after {timeout_s:g} s") from None
        self._reader.join(END_TIMEOUT_S)
        return code

    def end(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """Ask it to end, then kill its session; never raises for a process that is gone."""
        if self.alive:
            self.look()
            # A second SIGTERM would force the end that the first one drains towards.
            if not self._asked_to_end:
                self.term()
            self.signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout_s)
        self.killed = self.killed or self.alive
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(END_TIMEOUT_S)
        self._reader.join(END_TIMEOUT_S)

    def failure(self) -> str:
        """How it ended and what it said last."""
        return f"{self.name} ended with {self.returncode}; its log ends with:\n" + "".join(
            self._tail
        )

    def _complaint(self, what: str, timeout_s: float) -> str:
        how = "ended" if self._ended else f"said nothing for {timeout_s:g} s"
        return f"{self.name} {how} before {what}; its log ends with:\n{''.join(self._tail)}"

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self.log_path.open("ab", buffering=0) as log:
            for raw in self._popen.stdout:
                log.write(raw)
                with self._news:
                    self.hear(raw.decode("utf-8", errors="replace"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def hear(self, line: str) -> None:
        """Take one line of output; the lock is held."""
        self._tail = [*self._tail[1 - TAIL_LINES :], line]
        if (match := _ANNOUNCEMENT.match(line)) is not None:
            # Of what is said again and again only the latest is kept.
            self._said = [(k, f) for k, f in self._said if k != match["kind"]]
            self._said.append((match["kind"], json.loads(match["fields"])))


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
