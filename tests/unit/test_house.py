"""The rules of the house that a machine can hold. Exceptions stand here, each with its reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests import house
from tests.shared import REPOSITORY

FILE_LINES_MAX: Final = 400
# Tests of one thing are a list of cases, which reads well at more length.
TEST_LINES_MAX: Final = 800
FUNCTION_LINES_MAX: Final = 50

# A file over the limit, and why it is one idea all the same.
LONG_FILES: Final = {
    "wire/messages.py": "the whole vocabulary of the protocol, read as one page beside PROTOCOL.md",
    "master/core/service.py": "the one place that joins store, scheduler and both kinds of peers",
    "webui/openapi.py": "one document, most of it a literal",
    "wire/connection.py": "one transport; reading, writing, deadlines and end share each field",
    "tests/fakes/core.py": "a whole core in memory, for tests of the web and to look at the page",
}
LONG_FUNCTIONS: Final = {
    "master/core/service.py::__init__": "builds the parts of the core in the order of their needs",
    "webui/openapi.py::_paths": "a literal",
    "webui/openapi.py::_schemas": "a literal",
}

# Commands talk to people on stdout; every other module logs or returns.
PRINTING: Final = re.compile(r"(^|/)(cli|__main__)\.py$|/cli/")

# In pieces, so that this file does not hold what it forbids.
FORBIDDEN: Final = {
    r"(?<![\w.])/" + r"(work|opt/lk)(?=[/\s\"'`)]|$)": "a path of one machine",
    r"/(root|home/\w+)/": "somebody's home folder",
    r"farm-" + r"(bench|studio)|\.libra" + "ry/": "a tool that users don't have",
    "py" + r"pi\.org|pythonhos" + r"ted\.|download\.py" + r"torch\.org/whl": "a package index",
    "--(extra-)?index" + "-url": "a package index",
    r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b": "unfinished work; finish it or open an issue",
}


def test_a_long_file_has_a_reason() -> None:
    long = {
        path.as_posix()
        for path, text in house.texts()
        if path.suffix in {".py", ".js", ".css"} and len(text.splitlines()) > lines_max(path)
    }
    assert long - set(LONG_FILES) == set(), "split, or say why here"
    assert {name for name in LONG_FILES if not (REPOSITORY / name).is_file()} == set()


def lines_max(path: Path) -> int:
    """Limit for one file."""
    is_test = path.parts[0] == "tests" and path.parts[1] not in ("fakes", "bench")
    return TEST_LINES_MAX if is_test else FILE_LINES_MAX


def test_a_long_function_has_a_reason() -> None:
    long = {
        function.where: function.lines
        for path, tree in house.package_sources()
        for function in house.functions(path, tree)
        if function.lines > FUNCTION_LINES_MAX
    }
    assert {where for where in long if where not in LONG_FUNCTIONS} == set(), long


def test_only_commands_print() -> None:
    printing = [
        f"{path}:{line}"
        for path, tree in house.package_sources()
        if not PRINTING.search(path.as_posix())
        for line in house.printing_lines(tree)
    ]
    assert printing == []


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_file_holds_what_is_true_on_one_machine_only(pattern: str) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in house.texts()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == [], FORBIDDEN[pattern]


def test_every_module_says_what_it_is() -> None:
    silent = [
        path.as_posix()
        for path, tree in house.package_sources()
        if tree.body and ast.get_docstring(tree) is None
    ]
    assert silent == []


def test_the_checks_find_planted_faults() -> None:
    lines = "\n".join("    x = 1" for _ in range(FUNCTION_LINES_MAX + 1))
    tree = ast.parse(f"def long():\n    '''Doc.'''\n{lines}\ndef short():\n    print(1)\n")
    sizes = {f.where: f.lines for f in house.functions(Path("m.py"), tree)}
    assert sizes == {"m.py::long": FUNCTION_LINES_MAX + 1, "m.py::short": 1}
    assert house.printing_lines(tree) == [55]
    planted = [f"see {place}" for place in ("/wo" + "rk/main", "/opt" + "/lk/x", "/wo" + "rk")]
    machine = next(iter(FORBIDDEN))
    assert all(re.search(machine, line) for line in planted)
    assert not re.search(machine, "GET /workers and the folder tests" + "/wo" + "rk/")
