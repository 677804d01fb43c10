"""Who may import whom, and which modules do no I/O: the two tables, and their checker.

`make lint` runs `python -m tests.imports`; `tests/unit/test_imports.py` runs the
same on this repository and on planted violations. It reads source and imports
nothing, so a function-level or type-only import counts as any other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# The table of design: a package, and which of our packages it may import beside itself.
MAY_IMPORT: Final[Mapping[str, frozenset[str]]] = {
    "wire": frozenset(),
    "master": frozenset({"wire"}),
    "worker": frozenset({"wire"}),
    "webui": frozenset({"wire"}),
    "client": frozenset(),
    "netem": frozenset(),
    "experiments": frozenset({"client", "netem"}),
}

# Modules that take `now` and `rng` and do no I/O. Each entry must match a file.
PURE: Final[Sequence[str]] = (
    "wire/card.py",
    "wire/codec.py",
    "wire/errors.py",
    "wire/framing.py",
    "wire/handshake.py",
    "wire/messages.py",
    "wire/session.py",
    "wire/splice.py",
    "wire/streams.py",
    "master/detector.py",
    "master/scheduler/**/*.py",
    "master/states.py",
    "worker/agent.py",
    "worker/agreement.py",
    "worker/backoff.py",
    "worker/events.py",
    "worker/leases.py",
    "worker/outbox.py",
    "worker/streaming.py",
    "client/errors.py",
    "client/job.py",
    "client/retry.py",
    "experiments/chaos.py",
    "experiments/checker.py",
    "experiments/errors.py",
    "experiments/events.py",
    "experiments/history.py",
    "experiments/metrics.py",
    "experiments/rows.py",
    "experiments/scenario.py",
    "experiments/scenario_file.py",
    "experiments/schedule.py",
    "experiments/seeds.py",
    "experiments/statistics.py",
    "experiments/summary.py",
    "netem/backend.py",
    "netem/doctor.py",
    "netem/emulator/dice.py",
    "netem/emulator/direction.py",
    "netem/emulator/jitter.py",
    "netem/emulator/switch.py",
    "netem/errors.py",
    "netem/grammar.py",
    "netem/lab/topology.py",
    "netem/limits.py",
    "netem/spec.py",
    "netem/remote/inventory.py",
    "netem/tc/arguments.py",
    "netem/tc/command.py",
    "netem/tc/plan.py",
    "netem/tc/procedure.py",
    "netem/tc/readback.py",
    "netem/tc/record.py",
    "netem/tc/state.py",
    "netem/timeline.py",
    "netem/units.py",
)

# What a pure module may not import: clocks, files, sockets, processes, threads, logs, chance.
# fmt: off
IMPURE: Final = frozenset(
    {
        "time", "sched", "uuid", "secrets",
        "asyncio", "concurrent", "multiprocessing", "queue", "threading", "uvloop",
        "http", "httpx", "select", "selectors", "socket", "socketserver", "ssl", "urllib",
        "granian",
        "fcntl", "glob", "io", "mmap", "os", "pathlib", "shutil", "sqlite3", "tempfile",
        "ctypes", "resource", "signal", "subprocess", "sys",
        "importlib", "logging",
    }
)
# fmt: on
# The type of an injected generator is fine; the module's own shared one is not.
RANDOM_ALLOWED: Final = frozenset({"Random"})
# Ways to read the clock or do I/O without importing anything of IMPURE.
IMPURE_CALLS: Final = frozenset({"open", "print", "input", "__import__", "exec", "eval"})
IMPURE_METHODS: Final = frozenset({"now", "utcnow", "today"})


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One broken rule: where, and what to do instead."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed file; `path` is relative to the root, with slashes."""

    path: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """Top-level package that it belongs to."""
        return self.path.split("/", 1)[0]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and absolute dotted name of every import, wherever it stands.

        `from a import b` gives `a.b`, which may be a module or a name in `a`.
        """
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Call) and (name := _dynamic_import(node)) is not None:
                yield node.lineno, name

    def _absolute(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parents = self.path.split("/")[: -node.level]
        return ".".join([*parents, *filter(None, [node.module])])


def check(
    root: Path,
    *,
    may_import: Mapping[str, frozenset[str]] = MAY_IMPORT,
    pure: Sequence[str] = PURE,
) -> list[Violation]:
    """Every violation of the two tables under `root`, in order."""
    sources = [source for package in may_import for source in _sources(root, package)]
    pure_paths = {path for pattern in pure for path in _matches(root, pattern)}
    found = [v for source in sources for v in _directions(source, may_import)]
    for source in sources:
        if source.path in pure_paths:
            found += _impurities(source)
            found += _impure_friends(source, pure_paths, root, may_import)
    found += _stale(root, pure)
    return sorted(set(found))


def _directions(source: Source, may_import: Mapping[str, frozenset[str]]) -> Iterator[Violation]:
    """Imports of packages that the table does not give."""
    allowed = may_import[source.package] | {source.package}
    ours = set(may_import) | {"tests"}
    for line, name in source.imports():
        top = name.split(".", 1)[0]
        if top in ours and top not in allowed:
            reason = f"{source.package} may not import {top} (table MAY_IMPORT)"
            yield Violation(source.path, line, reason)


def _impurities(source: Source) -> Iterator[Violation]:
    """I/O, clocks and chance inside a pure module."""
    for line, name in source.imports():
        parts = name.split(".")
        if parts[0] in IMPURE:
            yield Violation(source.path, line, f"a pure module imports {parts[0]}")
        if parts[0] == "random" and len(parts) > 1 and parts[1] not in RANDOM_ALLOWED:
            yield Violation(source.path, line, f"a pure module takes `rng`, not {name}")
    for node in ast.walk(source.tree):
        if (what := _impure_use(node)) is not None:
            line = getattr(node, "lineno", 0)
            yield Violation(source.path, line, f"a pure module uses {what}")


def _impure_use(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id == "random" and node.attr not in RANDOM_ALLOWED:
            return f"random.{node.attr}; take `rng`"
        return None
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
        return f"{node.func.id}()"
    if isinstance(node.func, ast.Attribute) and node.func.attr in IMPURE_METHODS:
        return f".{node.func.attr}(); take `now`"
    if _names_random_class(node.func) and not node.args:
        return "Random() without a seed; take `rng`"
    return None


def _names_random_class(func: ast.expr) -> bool:
    return (isinstance(func, ast.Name) and func.id == "Random") or (
        isinstance(func, ast.Attribute) and func.attr == "Random"
    )


def _impure_friends(
    source: Source, pure_paths: set[str], root: Path, packages: Mapping[str, frozenset[str]]
) -> Iterator[Violation]:
    """A pure module may lean only on our pure modules: purity is transitive."""
    for line, name in source.imports():
        if name.split(".", 1)[0] not in packages:
            continue
        path = _module_path(root, name)
        if path is not None and path not in pure_paths:
            reason = f"a pure module imports {path}, which table PURE does not list"
            yield Violation(source.path, line, reason)


def _module_path(root: Path, name: str) -> str | None:
    """File of the longest prefix of `name` that is a module; packages with no code are None."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        stem = "/".join(parts[:end])
        if (root / f"{stem}.py").is_file():
            return f"{stem}.py"
        init = root / stem / "__init__.py"
        if init.is_file():
            return None if _only_docstring(init) else f"{stem}/__init__.py"
    return None


def _only_docstring(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in body)


def _stale(root: Path, pure: Sequence[str]) -> Iterator[Violation]:
    for pattern in pure:
        if not any(_matches(root, pattern)):
            yield Violation(pattern, 0, "table PURE lists it, and no file matches")


def _sources(root: Path, package: str) -> Iterator[Source]:
    for path in sorted((root / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield Source(path.relative_to(root).as_posix(), ast.parse(text, str(path)))


def _matches(root: Path, pattern: str) -> Iterator[str]:
    return (path.relative_to(root).as_posix() for path in root.glob(pattern))


def _dynamic_import(node: ast.Call) -> str | None:
    """The literal name in `import_module("x")` and `__import__("x")`."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in ("import_module", "__import__") or not node.args:
        return None
    first = node.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def main() -> int:
    """Print violations, one a line; exit status 1 if there are any."""
    found = check(Path(__file__).resolve().parent.parent)
    for violation in found:
        print(violation)
    print(f"imports: {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
