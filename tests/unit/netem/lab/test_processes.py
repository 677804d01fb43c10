"""Who a process is, and that one which has ended is nobody, even before it is noticed."""

from __future__ import annotations

import os
import subprocess

import pytest

from netem.lab.messages import Fault
from netem.lab.processes import start_ticks


def test_a_process_that_nobody_has_noticed_ending_is_gone() -> None:
    """As a keeper is whose parent, the first process of some containers, never waits for it."""
    child = subprocess.Popen(["sleep", "1000"])
    try:
        assert start_ticks(child.pid) >= start_ticks(os.getpid())
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):
            start_ticks(child.pid)
    finally:
        child.kill()
        child.wait()


def test_what_nobody_foresaw_is_told_with_its_name() -> None:
    told = Fault.of(KeyError("eth0"))
    assert str(told.error()) == "KeyError: 'eth0'"
