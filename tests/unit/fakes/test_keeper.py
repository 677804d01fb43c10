"""Nothing that a benchmark started outlives it, whichever signal ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.shared import REPOSITORY

# The command starts a server in a session of its own, as mosec and Ray do, and says its id.
SERVER = (
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c',"
    " 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'],"
    " start_new_session=True); print(p.pid, flush=True); {end}"
)
CALLER = "import sys; from tests.bench.keeper import run_kept; sys.exit(run_kept(sys.argv[1:]))"


def call(end: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A benchmark under way, and the server that it started."""
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, sys.executable, "-c", SERVER.format(end=end)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert caller.stdout is not None
    return caller, psutil.Process(int(caller.stdout.readline()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_benchmark_leaves_no_server(number: signal.Signals) -> None:
    caller, server = call("time.sleep(600)")
    assert server.is_running()
    caller.send_signal(number)
    assert caller.wait(10.0) == -number
    server.wait(20.0)  # raises if it still runs
    assert not server.is_running()


def test_a_benchmark_that_ends_leaves_none_and_gives_its_status() -> None:
    caller, server = call("sys.exit(3)")
    assert caller.wait(20.0) == 3
    assert not server.is_running()


def test_ctrl_c_reaches_the_benchmark_and_ends_all() -> None:
    caller, server = call("time.sleep(600)")
    began_s = time.monotonic()
    # The terminal sends it to the whole group; here: to caller, keeper and command.
    for process in [
        *psutil.Process(caller.pid).children(recursive=True),
        psutil.Process(caller.pid),
    ]:
        if process.pid != server.pid:
            process.send_signal(signal.SIGINT)
    assert caller.wait(20.0) != 0
    assert time.monotonic() - began_s < 20.0
    assert not server.is_running()
