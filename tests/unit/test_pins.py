"""The pins of setup.cfg are what the tests run with."""

from __future__ import annotations

import configparser
import re
import sys
from importlib import metadata

import pytest

from tests.house import package_sources
from tests.imports import MAY_IMPORT, Source
from tests.shared import REPOSITORY

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[0-9][\w.]*)$")
# Extras that are no part of the environment that runs tests.
_ABSENT_EXTRAS = frozenset({"lint"})


def requirements() -> list[tuple[str, str]]:
    """Every requirement as (extra, line); the extra of the base is ''."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    base = [("", line) for line in _lines(config["options"]["install_requires"])]
    extras = config["options.extras_require"].items()
    return base + [(extra, line) for extra, text in extras for line in _lines(text)]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


PINS = [pair for pair in requirements() if not pair[1].startswith("lookout[")]


def test_there_are_pins() -> None:
    assert len(PINS) > 15


@pytest.mark.parametrize(("extra", "line"), PINS)
def test_a_pin_is_exact_and_is_what_is_installed(extra: str, line: str) -> None:
    pin = _PIN.match(line)
    assert pin is not None, f"{line} is not NAME==VERSION"
    if extra not in _ABSENT_EXTRAS:
        # A local part (`+cpu`) names a build of the same version.
        assert metadata.version(pin["name"]).split("+")[0] == pin["version"]


def test_one_package_has_one_pin() -> None:
    versions: dict[str, set[str]] = {}
    for _, line in PINS:
        name, _, version = line.partition("==")
        versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def pinned(*extras: str) -> set[str]:
    """Normalised names of the distributions of these extras."""
    return {_normal(line.partition("==")[0]) for extra, line in PINS if extra in extras}


def imported(package: str) -> set[str]:
    """Normalised names of the distributions that a package's source imports, anywhere in it."""
    known = metadata.packages_distributions()
    names = {
        name.partition(".")[0]
        for path, tree in package_sources()
        if path.parts[0] == package
        for _, name in Source(path.as_posix(), tree).imports()
    }
    foreign = names - set(sys.stdlib_module_names) - set(MAY_IMPORT)
    return {_normal(known[name][0]) if name in known else name for name in foreign}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("wire", ("",)),
        ("client", ("", "video")),
        ("master", ("", "master")),
        ("webui", ("", "master")),
        ("worker", ("", "worker", "int8")),
        ("netem", ("", "netem")),
        ("experiments", ("", "netem", "experiments")),
    ],
)
def test_a_package_imports_only_what_its_extra_installs(
    package: str, extras: tuple[str, ...]
) -> None:
    assert imported(package) - pinned(*extras) == set()


def test_no_pin_is_unused() -> None:
    assert pinned("master") - imported("master") - imported("webui") == set()
    assert pinned("worker", "int8") - imported("worker") == set()
