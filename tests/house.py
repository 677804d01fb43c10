"""What the house rules are checked on: the tracked files of this repository."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.imports import MAY_IMPORT
from tests.shared import REPOSITORY

_BINARY_SUFFIXES = frozenset(
    {".gif", ".ico", ".jpeg", ".jpg", ".npz", ".png", ".pth", ".safetensors", ".webp", ".woff2"}
)
_UNTRACKED = re.compile(r"\.(?!ci$|gitignore$)|__pycache__$|build$|dist$|.*\.egg-info$")


@cache
def tracked_files() -> tuple[Path, ...]:
    """Files that git tracks or would add, relative to the root.

    New files count before they are committed, so that a test fails where they are
    written. Without git, as in an unpacked archive, all files but build outputs count.
    """
    listing = subprocess.run(
        [
            *("git", "-c", f"safe.directory={REPOSITORY}", "ls-files", "-z"),
            *("--cached", "--others", "--exclude-standard"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        return tuple(sorted(_walk()))
    names = listing.stdout.decode().split("\0")
    return tuple(Path(name) for name in names if name and (REPOSITORY / name).is_file())


def _walk() -> Iterator[Path]:
    for path in REPOSITORY.rglob("*"):
        relative = path.relative_to(REPOSITORY)
        if path.is_file() and not any(_UNTRACKED.match(part) for part in relative.parts):
            yield relative


def texts() -> Iterator[tuple[Path, str]]:
    """Every tracked text file with its content."""
    for path in tracked_files():
        if path.suffix.lower() not in _BINARY_SUFFIXES:
            yield path, (REPOSITORY / path).read_text(encoding="utf-8")


def package_sources() -> Iterator[tuple[Path, ast.Module]]:
    """Every Python file of the packages (not of the tests), parsed."""
    for path in tracked_files():
        if path.suffix == ".py" and path.parts[0] in MAY_IMPORT:
            yield path, ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Function:
    """A function's place and length, its docstring not counted."""

    where: str
    lines: int


def functions(path: Path, tree: ast.Module) -> Iterator[Function]:
    """Every function of a file, nested ones too; `where` is `path::name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            yield Function(f"{path.as_posix()}::{node.name}", lines)


def printing_lines(tree: ast.Module) -> list[int]:
    """Lines that call `print`."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
