"""What a run notes of the processes that it started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from experiments.processes import Process

BURN_S = 0.3
CHILD = f"""
import time
while time.process_time() < {BURN_S}:
    pass
print("LOOKOUT burnt {{}}", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}])
"""


def test_what_a_child_uses_is_counted(tmp_path: Path) -> None:
    process = Process(
        "web",
        [sys.executable, "-c", PARENT],
        log_path=tmp_path / "web.log",
        env=dict(os.environ),
        cwd=tmp_path,
    )
    try:
        process.announcement("burnt", 30.0)
        process.look()
        assert process.usage.cpu_s >= BURN_S
        assert process.usage.resident_bytes > 1_000_000
        before = process.usage
        process.kill9()
        assert process.usage.cpu_s >= before.cpu_s, "a last look before it is killed"
    finally:
        process.end()
