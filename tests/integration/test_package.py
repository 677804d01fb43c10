"""What is installed is whole: every file of the packages, by way of an sdist, and it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.house import tracked_files
from tests.shared import REPOSITORY

pytestmark = pytest.mark.slow
PACKAGES = ("wire", "master", "worker", "webui", "client", "netem", "experiments")
SDIST = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"


def run(command: Sequence[str | Path], **options: Any) -> str:
    """Output of a command that must succeed; its whole output is in the failure."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages as pip installs them from an sdist, without dependencies."""
    folder = tmp_path_factory.mktemp("package")
    builder, sdists, target = folder / "builder", folder / "sdists", folder / "target"
    sdists.mkdir()
    source = _copy_of_tracked_files(folder / "source")
    venv.create(builder, with_pip=True)
    python = builder / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "--no-input", "--disable-pip-version-check"]
    pip += ["install", "--quiet"]
    run([*pip, "setuptools>=77,<90"])
    run([python, "-c", SDIST, sdists], cwd=source)
    (sdist,) = sdists.glob("lookout-*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/LICENSE") for name in archive.getnames())
    run([*pip, "--no-deps", "--no-build-isolation", "--target", target, sdist])
    return target


def _copy_of_tracked_files(target: Path) -> Path:
    """Building writes into the source tree; this keeps the checkout clean."""
    for path in tracked_files():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes((REPOSITORY / path).read_bytes())
    return target


def test_no_file_of_a_package_is_left_out(installed: Path) -> None:
    wanted = [path for path in tracked_files() if path.parts[0] in PACKAGES]
    assert len(wanted) > 50
    assert [str(path) for path in wanted if not (installed / path).is_file()] == []


def test_nothing_but_the_packages_is_installed(installed: Path) -> None:
    extra = {path.name for path in installed.iterdir()} - set(PACKAGES) - {"bin"}
    assert {name for name in extra if not name.endswith(".dist-info")} == set()


@pytest.mark.parametrize("command", [["master", "--help"], ["worker", "--help"]])
def test_the_installed_copy_starts_away_from_the_checkout(
    installed: Path, tmp_path: Path, command: list[str]
) -> None:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    where = f"import {command[0]} as m; print(m.__file__)"
    assert str(installed) in run([sys.executable, "-c", where], env=env, cwd=tmp_path)
    assert "usage:" in run([sys.executable, "-m", *command], env=env, cwd=tmp_path)
    assert (installed / "bin" / command[0]).is_file()


@pytest.mark.parametrize(
    ("command", "extra"),
    [(["master", "up"], "master"), (["worker", "join", "127.0.0.1"], "worker")],
)
def test_without_its_extra_a_command_says_what_to_install(
    installed: Path, tmp_path: Path, command: list[str], extra: str
) -> None:
    (tmp_path / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    path = os.pathsep.join([str(installed), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-S", "-m", *command],
        env={"PYTHONPATH": path, "HOME": str(tmp_path), "LOOKOUT_TOKEN": "abcdefgh"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"pip install 'lookout[{extra}]'" in done.stderr
    assert done.returncode == 2
