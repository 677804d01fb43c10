"""`make` on a machine that lacks something says exactly what to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared import REPOSITORY

# Stands in for a Debian without python3-venv: the same interpreter, but ensurepip is not there.
_WITHOUT_ENSUREPIP = """#!/bin/sh
case "$*" in
    "-c import ensurepip") exit 1 ;;
    "-m pip"*) exit {pip_status} ;;
esac
exec "{python}" "$@"
"""


def make(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make on this repository with an environment folder of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "-C", str(REPOSITORY), f"VENV={tmp_path / 'venv'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**inherited, "LC_ALL": "C"},
        check=False,
    )


def interpreter(tmp_path: Path, *, pip: bool) -> Path:
    """An interpreter without ensurepip, with or without a pip of the system."""
    path = tmp_path / "python3.11"
    path.write_text(_WITHOUT_ENSUREPIP.format(pip_status=0 if pip else 1, python=sys.executable))
    path.chmod(0o755)
    return path


def test_help_is_the_default_and_lists_every_target(tmp_path: Path) -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    listed = re.findall(r"^  make ([a-z-]+)", make(tmp_path).stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())


@pytest.mark.parametrize("target", ["run", "test"])
def test_without_a_python_it_names_the_packages(tmp_path: Path, target: str) -> None:
    done = make(tmp_path, target, "PYTHON=/nowhere/python3.11")
    assert done.returncode != 0
    assert "apt-get install python3 python3-venv" in done.stderr
    assert "/nowhere/python3.11" in done.stderr
    assert f"make {target} PYTHON=" in done.stderr


def test_without_ensurepip_and_pip_it_names_the_package(tmp_path: Path) -> None:
    done = make(tmp_path, "run", f"PYTHON={interpreter(tmp_path, pip=False)}")
    assert done.returncode != 0
    major, minor = sys.version_info[:2]
    assert f"apt-get install python{major}.{minor}-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_without_ensurepip_the_systems_pip_does(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    done = make(tmp_path, str(python), f"PYTHON={interpreter(tmp_path, pip=True)}")
    assert (done.returncode, done.stderr) == (0, "")
    assert python.exists()


def test_a_finished_environment_is_not_touched_again(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (tmp_path / "venv" / ".installed-run").touch()
    plan = make(tmp_path, "run", "--dry-run")
    assert "pip" not in plan.stdout
    assert "-m master up --workers 2" in plan.stdout
