"""A data directory has one owner, and a person is told what to do about it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from master.store import open_store
from tests.shared import REPOSITORY
from wire.errors import EnvironmentFault

NOBODY = 65534
OPEN = "import sys; from pathlib import Path; from master.store import open_store; "
HOLD = OPEN + "s = open_store(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
TRY = OPEN + (
    "from wire.errors import EnvironmentFault\n"
    "try: open_store(Path(sys.argv[1])).close()\n"
    "except EnvironmentFault as error: print(error.code, error)"
)


def test_a_second_process_is_refused_and_told_who_owns_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    said = _python(TRY, tmp_path).stdout
    store.close()
    assert said.startswith("data_dir_in_use ")
    assert str(tmp_path) in said
    assert f"process {os.getpid()}" in said
    assert "--data" in said
    assert _python(TRY, tmp_path).stdout == ""


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(EnvironmentFault, match="in use") as refused:
        open_store(tmp_path)
    assert refused.value.code == "data_dir_in_use"
    store.close()
    open_store(tmp_path).close()


def test_a_killed_owner_leaves_no_stale_lock(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    owner.kill()
    owner.communicate()
    open_store(tmp_path).close()


def test_a_failed_opening_gives_the_directory_back(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"not a database at all " * 100)
    for _ in range(2):
        with pytest.raises(EnvironmentFault) as refused:
            open_store(tmp_path)
        assert refused.value.code == "data_corrupt"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_path_that_is_no_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentFault, match="is a file") as refused:
        open_store(tmp_path / name)
    assert refused.value.code == "data_dir_unusable"


def test_a_directory_that_we_may_not_write_is_refused() -> None:
    # Not below `tmp_path`, where nobody else may look.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        with _as_nobody(), pytest.raises(EnvironmentFault, match="may not write") as refused:
            open_store(Path(name))
    assert refused.value.code == "data_dir_unusable"


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    """As a user whom permissions bind: root may write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def _python(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
