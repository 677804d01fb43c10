"""The process that trains keeps freed memory, and starts anew for that only once."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared import REPOSITORY
from worker.train.allocator import VARIABLE, keeping


def test_what_the_user_set_stays_and_other_libraries_are_left_alone() -> None:
    assert keeping({VARIABLE: "glibc.malloc.arena_max=1"}, "glibc") is None
    assert keeping({"HOME": "/"}, "musl") is None
    assert keeping({"HOME": "/"}, "") is None
    added = keeping({"HOME": "/"}, "glibc")
    assert added is not None and added.pop("HOME") == "/"
    assert list(added) == [VARIABLE]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("module", ["worker", "worker.train"])
def test_the_command_starts_anew_once_with_its_arguments(module: str, tmp_path: Path) -> None:
    """A `sitecustomize` tells of each start of the interpreter."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nprint('start', os.environ.get({VARIABLE!r}), file=sys.stderr)\n"
    )
    missing = tmp_path / "missing"
    command = ["train"] if module == "worker" else []
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", module, *command, str(missing)],
        cwd=REPOSITORY,
        env={**environment, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    starts = [line for line in done.stderr.splitlines() if line.startswith("start ")]
    assert len(starts) == 2
    assert starts[0] == "start None" and "mmap_threshold" in starts[1]
    assert done.returncode == 2 and str(missing) in done.stderr
