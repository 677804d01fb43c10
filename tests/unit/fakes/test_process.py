"""The children of integration tests: what they say is heard, and they end with the test."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.process import Process, ProcessFailed

SERVES = (
    'print(\'LOOKOUT core {"listen": "127.0.0.1:7"}\', flush=True); import time; time.sleep(60)'
)
Start = Callable[[str], Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Process] = []

    def run(code: str) -> Process:
        log = tmp_path / f"{len(made)}.log"
        argv = [sys.executable, "-c", code]
        made.append(Process("child", argv, log_path=log, env=os.environ, cwd=tmp_path))
        return made[-1]

    yield run
    for process in made:
        process.finish(time.monotonic())


def test_announcement_is_parsed_and_logged(start: Start) -> None:
    child = start(SERVES)
    assert child.announcement("core", timeout_s=10) == {"listen": "127.0.0.1:7"}
    assert "LOOKOUT core" in child.log()


def test_announcement_of_another_kind_is_not_taken(start: Start) -> None:
    child = start(SERVES)
    child.announcement("core", timeout_s=10)
    with pytest.raises(ProcessFailed, match="said nothing for"):
        child.announcement("web", timeout_s=0.05)


def test_a_child_that_ends_early_fails_at_once_with_its_log(start: Start) -> None:
    child = start("import sys; sys.exit('no weights')")
    with pytest.raises(ProcessFailed, match=r"ended before(?s:.*)no weights"):
        child.announcement("core", timeout_s=60)


def test_wait_line_finds_a_line_of_stderr(start: Start) -> None:
    child = start("import sys; print('joined as w1', file=sys.stderr)")
    assert child.wait_line(r"joined as (\w+)", timeout_s=10)[1] == "w1"


def test_kill9_ends_it_and_is_remembered(start: Start) -> None:
    child = start(SERVES)
    child.kill9()
    assert (child.returncode, child.killed, child.alive) == (-9, True, False)


def test_finish_ends_a_child_that_is_stopped_and_ignores_sigterm(start: Start) -> None:
    child = start(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('LOOKOUT core {}', flush=1);"
        "time.sleep(60)"
    )
    child.announcement("core", timeout_s=10)
    child.sigstop()
    child.finish(time.monotonic() + 0.2)
    assert child.returncode == -9
