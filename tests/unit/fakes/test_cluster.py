"""A cluster's end: nothing of it survives, and a survivor fails the test that made it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.fakes import cluster as module
from tests.fakes.cluster import Cluster

# Leaves a grandchild in a session of its own behind, as a careless supervisor would.
ORPHANS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         start_new_session=True)
print("LOOKOUT child {\\"pid\\": %d}" % child.pid, flush=True)
"""


def idle(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path, workers=0)


def test_a_survivor_is_ended_and_fails_the_test(tmp_path: Path) -> None:
    cluster = idle(tmp_path)
    parent = cluster.spawn("parent", ["-c", ORPHANS])
    pid = parent.announcement("child", timeout_s=10)["pid"]
    parent.wait(timeout_s=10)
    with pytest.raises(AssertionError, match=f"outlived the ones that started them.*{pid}"):
        cluster.stop()
    gone, alive = psutil.wait_procs(_existing(pid), timeout=10)
    assert not alive, gone


def test_a_survivor_of_a_killed_parent_is_ended_quietly(tmp_path: Path) -> None:
    cluster = idle(tmp_path)
    parent = cluster.spawn("parent", ["-c", ORPHANS + "import time; time.sleep(60)"])
    pid = parent.announcement("child", timeout_s=10)["pid"]
    parent.kill9()
    cluster.stop()
    assert not psutil.wait_procs(_existing(pid), timeout=10)[1]


def test_another_process_of_this_machine_is_not_touched(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        idle(tmp_path).stop()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_children_do_not_see_a_developers_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKOUT_TOKEN", "secret")
    cluster = idle(tmp_path)
    child = cluster.spawn("child", ["-c", "import os; print(sorted(os.environ))"])
    child.wait(timeout_s=10)
    line = child.wait_line("HOME", timeout_s=10).string
    assert "LOOKOUT_TOKEN" not in line
    assert module._MARK in line
    cluster.stop()


def test_the_token_is_private(tmp_path: Path) -> None:
    cluster = idle(tmp_path)
    cluster.data.mkdir()
    cluster._place_token()
    assert cluster.token_file.stat().st_mode & 0o077 == 0
    assert len(cluster.token) >= 32
    cluster.stop()


def _existing(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid)] if psutil.pid_exists(pid) else []
