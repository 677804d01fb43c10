"""The import checker finds what it must, and finds nothing here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.imports import check
from tests.shared import REPOSITORY

MAY_IMPORT = {
    "wire": frozenset[str](),
    "master": frozenset({"wire"}),
    "worker": frozenset({"wire"}),
}
PURE = ("master/states.py",)
Plant = Callable[[str, str], list[str]]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write one file into a small clean repository, and return what the checker says."""
    for name in ("wire/__init__.py", "master/__init__.py", "worker/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('"""Package."""\n')
    (tmp_path / "master/states.py").write_text("from random import Random\n")
    (tmp_path / "master/clock.py").write_text("import time\n")

    def write(name: str, code: str) -> list[str]:
        (tmp_path / name).write_text(code)
        return [str(v) for v in check(tmp_path, may_import=MAY_IMPORT, pure=PURE)]

    return write


def test_this_repository_keeps_both_tables() -> None:
    assert [str(v) for v in check(REPOSITORY)] == []


def test_every_package_of_the_repository_is_in_the_table() -> None:
    from tests.imports import MAY_IMPORT as TABLE

    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert packages - {"tests"} <= set(TABLE)


def test_a_clean_tree_has_no_violation(plant: Plant) -> None:
    assert plant("worker/ok.py", "import wire\nimport time\nfrom wire import x\n") == []


@pytest.mark.parametrize(
    "code",
    [
        "import master",
        "import master.states as s",
        "from master.states import JobState",
        "from master import states",
        "def f():\n    import master.states",
        "if False:\n    from master import states",
        "import importlib\nimportlib.import_module('master.states')",
        "from tests import shared",
    ],
)
def test_worker_importing_master_is_found(plant: Plant, code: str) -> None:
    found = plant("worker/bad.py", code)
    assert len(found) == 1
    assert found[0].startswith("worker/bad.py:")
    assert "worker may not import" in found[0]


def test_the_rule_holds_in_both_directions(plant: Plant) -> None:
    assert "master may not import worker" in plant("master/bad.py", "import worker.agent")[0]
    assert "wire may not import master" in plant("wire/bad.py", "from master import x")[1]


def test_a_relative_import_stays_inside(plant: Plant) -> None:
    assert plant("master/ok.py", "from . import states\nfrom .states import x\n") == []


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "from time import monotonic",
        "import asyncio.events",
        "import sqlite3",
        "from concurrent.futures import Future",
        "import logging",
        "import os.path",
        "def f():\n    import socket",
        "import random\nx = random.random()",
        "from random import choice",
        "import random\nx = random.Random()",
        "from datetime import datetime\nx = datetime.now()",
        "x = open('f')",
        "print(1)",
        "from master import clock",
        "from .clock import x",
        "from master.clock import x",
    ],
)
def test_an_impure_line_in_a_pure_module_is_found(plant: Plant, code: str) -> None:
    found = plant("master/states.py", code)
    assert len(found) == 1, found
    assert "a pure module" in found[0]


def test_a_pure_module_may_use_an_injected_generator(plant: Plant) -> None:
    code = "import random\ndef f(rng: random.Random) -> float:\n    return rng.random()\n"
    assert plant("master/states.py", code) == []


def test_an_entry_of_the_table_that_matches_nothing_is_found(tmp_path: Path) -> None:
    found = check(tmp_path, may_import={}, pure=["wire/gone.py"])
    assert [v.path for v in found] == ["wire/gone.py"]
