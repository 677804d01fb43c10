"""What produced a run: code, machine, versions, seeds, weights. Written before the first point."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.cluster import SOURCE
from experiments.errors import Unlike

PACKAGES: Final = ("lookout", "torch", "torchvision", "numpy", "scipy", "httpx", "msgspec")
GIT_TIMEOUT_S: Final = 10.0
# What must be the same in two runs that are compared; `although` takes single ones out.
ALIKE: Final = ("scenario", "quick", "cpu", "cores", "kernel", "weights_sha256", "backend")
# Fields of a scenario that say what it is called, and change nothing that is measured.
_NAMES: Final = ("name", "title", "question", "published", "metric", "seed")


class Manifest(msgspec.Struct, kw_only=True, frozen=True):
    """One run's origin. `weights_sha256` and `backend` are known after the first replicate."""

    scenario: dict[str, Any]
    quick: bool
    seed: int
    commit: str
    dirty: bool
    kernel: str
    cpu: str
    cores: int
    memory_mb: int
    python: str
    versions: dict[str, str]
    started_at: str
    command: str
    weights_sha256: str = ""
    model: str = ""
    backend: str = ""
    reference: dict[str, int] = {}


def make(table: dict[str, Any], *, quick: bool, seed: int, now: str, command: str) -> Manifest:
    """The manifest of a run on this machine."""
    commit, dirty = _git()
    return Manifest(
        scenario=table,
        quick=quick,
        seed=seed,
        commit=commit,
        dirty=dirty,
        kernel=platform.release(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        python=platform.python_version(),
        versions=_versions(),
        started_at=now,
        command=command,
    )


def check_alike(a: Manifest, b: Manifest, although: frozenset[str] = frozenset()) -> None:
    """Refuse to compare what is not comparable.

    `although` names the fields that differ on purpose: of the manifest, or of the
    scenario as `table.field`.

    Raises:
        Unlike: naming each difference.
    """
    differences = []
    for name in ALIKE:
        mine, theirs = getattr(a, name), getattr(b, name)
        if name == "scenario":
            differences += _differences(_flat(mine), _flat(theirs), although)
        elif mine != theirs and name not in although:
            differences.append(f"{name}: {mine!r} and {theirs!r}")
    if differences:
        raise Unlike(
            "the runs are not alike: "
            + "; ".join(differences)
            + " (name what differs on purpose with --although)"
        )


def _differences(a: dict[str, Any], b: dict[str, Any], although: frozenset[str]) -> list[str]:
    return [
        f"{key}: {a.get(key)!r} and {b.get(key)!r}"
        for key in sorted({*a, *b})
        if a.get(key) != b.get(key) and key not in although
    ]


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if not prefix and key in _NAMES:
            continue
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _git() -> tuple[str, bool]:
    """Commit and whether files were changed since; empty where the source is no checkout."""
    try:
        commit = _run("rev-parse", "HEAD")
        return commit, bool(_run("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", False


def _run(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=GIT_TIMEOUT_S,
        check=True,
    ).stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
