"""What a benchmark says of the machine that it runs on, and of processes there."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil


def cpu_name() -> str:
    """The CPU's model, as the kernel knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its living children so far."""
    parent = psutil.Process(pid)
    times = [one.cpu_times() for one in [parent, *parent.children(recursive=True)]]
    return sum(spent.user + spent.system for spent in times)
