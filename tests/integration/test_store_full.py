"""A full disk, for real: a small tmpfs in a mount namespace of its own, and a file size limit."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.store_full_child import SCENARIOS
from tests.shared import REPOSITORY

SIZE = "16m"
pytestmark = pytest.mark.integration


@functools.cache
def namespace() -> list[str]:
    """The command in front that gives a process mounts of its own; empty if we may not."""
    commands = [
        ["unshare", "--mount", "--propagation", "private"],
        ["unshare", "--user", "--map-root-user", "--mount"],
    ]
    for command in commands if os.geteuid() == 0 else commands[1:]:
        trial = [*command, "mount", "-t", "tmpfs", "-o", "size=1m", "trial", "/tmp"]
        try:
            subprocess.run(trial, check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.CalledProcessError):
            continue
        return command
    return []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_full_filesystem(tmp_path: Path, scenario: str) -> None:
    if not namespace():
        pytest.skip("no mount namespaces here: neither root nor unprivileged user namespaces")
    mount = 'mount -t tmpfs -o size="$1" lookout "$2" && shift 2 && exec "$@"'
    shell = ["sh", "-c", mount, "sh", SIZE, str(tmp_path)]
    _run([*namespace(), *shell, *_child(scenario, "mounted", tmp_path)])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_limit_on_the_size_of_files(tmp_path: Path, scenario: str) -> None:
    _run(_child(scenario, "limited", tmp_path))


def _child(scenario: str, disk: str, directory: Path) -> list[str]:
    module = "tests.integration.store_full_child"
    return [sys.executable, "-m", module, scenario, disk, str(directory)]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
