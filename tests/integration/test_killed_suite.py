"""Tests that are killed leave no process of their clusters, whichever signal it is."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.process import Process
from tests.shared import REPOSITORY, wait_until

pytestmark = pytest.mark.integration

MARK = "SUITE_TO_KILL"
READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 40.0
# A test with a cluster, one process of which is from a thread that has ended.
SUITE = """
import threading, time

def test_that_is_killed(cluster):
    lookout = cluster(workers=1, whole=True, bundled=True)
    sleeper = ["-c", "import time; time.sleep(600)"]
    thread = threading.Thread(target=lookout.spawn, args=("late", sleeper))
    thread.start()
    thread.join()
    lookout.wait_ready()
    print("\\nLOOKOUT suite {}", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_killed_suite_leaves_no_process(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    mark = secrets.token_hex(8)
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-s", "-p", "tests.conftest", str(suite)]
    # What a killed one can't remove goes with this folder.
    with tempfile.TemporaryDirectory(prefix="lookout-") as folder:
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": folder, MARK: mark}
        log = tmp_path / "log"
        with Process("pytest", command, log_path=log, env=env, cwd=tmp_path) as tests:
            try:
                tests.announcement("suite", READY_TIMEOUT_S)
                started = set(words(mark))
                assert {"pytest", "up", "core", "webui", "worker", "-c"} <= started, started
                tests.signal(number)
                assert tests.wait(END_TIMEOUT_S) == status, tests.log()
                wait_until(lambda: not words(mark), END_TIMEOUT_S, f"the end of {started}")
            finally:
                for process in marked(mark):
                    with contextlib.suppress(psutil.Error):
                        process.kill()


def words(mark: str) -> list[str]:
    """What each of them is: its command's words that tell, one after the other."""
    return [word for process in marked(mark) for word in process.info["cmdline"] or []]


def marked(mark: str) -> Iterator[psutil.Process]:
    """Processes that inherited the mark, whoever their parent is now."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                yield process
