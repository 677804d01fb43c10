"""A LinkSpec from text and from TOML.

`loss=10% delay=50ms rate=100mbit` on a command line, a table in a file. Nothing
is guessed: a number without its unit, an unknown key and a repeated one are
refused with what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from netem import units
from netem.errors import BadSpec
from netem.spec import DEFAULTS, KEYS, PERFECT, UNITS, Distribution, GilbertElliott, LinkSpec

_NAMES: Final = {key: name for name, key in KEYS.items()}


def parse(text: str, base: LinkSpec = PERFECT) -> LinkSpec:
    """The LinkSpec of `loss=10% delay=50ms …`; what it doesn't name is as in `base`.

    A value of 0 resets its field, and the text `0` (or none) gives a perfect link.

    Raises:
        BadSpec: an unknown or repeated key, a value out of its limits, or an impossible mix.
    """
    words = text.split()
    if words in ([], ["0"]):
        return PERFECT
    given: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise BadSpec(f"{word!r} is no KEY=VALUE: write it like loss=10%")
        name = _name_of(key)
        if name in given:
            raise BadSpec(f"{key} is given twice: keep one")
        given[name] = _read(name, value)
    return _with(base, given)


def from_table(table: Mapping[str, Any]) -> LinkSpec:
    """The LinkSpec of a TOML table.

    Strings are written as in `parse`: `loss = "10%"`. Numbers go under the name
    of the Python field, in its unit: `loss = 0.1`, `delay_ms = 50`.

    Raises:
        BadSpec: as `parse`, or a number under a name that doesn't say its unit.
    """
    given: dict[str, Any] = {}
    for key, value in table.items():
        name = _name_of(key) if isinstance(value, str) else _field_of(key, value)
        if name in given:
            raise BadSpec(f"{key} is given twice: keep one")
        given[name] = _read(name, value) if isinstance(value, str) else value
    return _with(PERFECT, given)


def _with(base: LinkSpec, given: Mapping[str, Any]) -> LinkSpec:
    # Who asks for the other kind of loss doesn't want the one of `base`.
    other: Mapping[str, Mapping[str, Any]] = {"loss": {"bursts": None}, "bursts": {"loss": 0.0}}
    replaced = {k: v for name in given for k, v in other.get(name, {}).items() if k not in given}
    kept = {name: getattr(base, name) for name in DEFAULTS}
    return LinkSpec(**{**kept, **replaced, **given})


def _name_of(key: str) -> str:
    name = _NAMES.get(key)
    if name is None:
        raise BadSpec(f"unknown key {key!r}; a link has {', '.join(_NAMES)}")
    return name


def _field_of(key: str, value: object) -> str:
    if key not in DEFAULTS or key in ("bursts", "distribution"):
        if key in _NAMES:
            example = f'"{_example(_NAMES[key])}"'
            raise BadSpec(f"{key} = {value!r} has no unit: write {key} = {example}")
        raise BadSpec(f"unknown key {key!r}; a link has {', '.join(DEFAULTS)}")
    return key


def _example(name: str) -> str:
    unit = UNITS[name]
    return unit.example if unit is not None else {"bursts": "1%,10%"}.get(name, "normal")


def _read(name: str, text: str) -> Any:
    unit, key = UNITS[name], KEYS[name]
    if unit is not None:
        return unit.read(key, text)
    if name == "bursts":
        return _read_bursts(text)
    if text not in ("0", *Distribution):
        raise BadSpec(f"{key}={text} is unknown; there are {', '.join(Distribution)}")
    return Distribution.UNIFORM if text == "0" else Distribution(text)


def _read_bursts(text: str) -> GilbertElliott | None:
    if text == "0":
        return None
    parts = text.split(",")
    if not 2 <= len(parts) <= 4:
        raise BadSpec(f"bursts={text} is not P,R[,1-H[,1-K]]: write it like 1%,10%")
    names = ("p", "r", "bad_loss", "good_loss")
    numbers = [units.PROBABILITY.read("bursts", part) for part in parts]
    return GilbertElliott(**dict(zip(names, numbers, strict=False)))
