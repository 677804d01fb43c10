"""The command `worker`: what it says, how it ends, and what it leaves unimported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.shared import REPOSITORY
from worker.cli import main

HEAVY = ("torch", "torchvision")


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("join", "check", "train"))


def test_no_command_is_an_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_a_wrong_address_ends_with_code_2_and_the_way_to_write_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["join", "master:port"]) == 2
    assert capsys.readouterr().err.startswith("worker: 'master:port' is no address")


def test_train_has_its_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    assert "--epochs" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["worker.cli", "worker.service"])
def test_joining_imports_no_torch(module: str) -> None:
    """Torch is imported once a model is wanted: until then a worker is small and quick."""
    code = f"import sys, {module}; print(*(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
