"""Random messages that a peer may send, made from the types of `wire.messages` themselves.

A new message or field is covered without a line here; a new kind of type
raises, so that it can't be forgotten.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import inspect as mi

from wire import messages as m
from wire.codec import ALL_TYPES

SIZES: Final = (0, 0, 1, 2, 3, 5, 17)
WORDS: Final = ("", "a", "tench", "ключ", "犬", "x" * 40, "dog, hound", "\U0001f415")
BY_PATTERN: Final[dict[str, Callable[[random.Random], str]]] = {
    r"^j[0-9]{1,18}\Z": lambda rng: f"j{rng.randrange(10 ** rng.randint(1, 18))}",
    r"^s[0-9]{1,18}\Z": lambda rng: f"s{rng.randrange(10 ** rng.randint(1, 18))}",
    r"^[0-9a-f]{64}\Z": lambda rng: f"{rng.getrandbits(256):064x}",
    r"^[^\x00-\x1f\x7f-\x9f]+\Z": lambda rng: rng.choice(WORDS[1:]),
}


def random_message(rng: random.Random, message_type: type[m.Message] | None = None) -> m.Message:
    """One valid message of that type, or of any."""
    chosen = message_type or rng.choice(list(ALL_TYPES.values()))
    made = build(rng, _type_info(chosen))
    assert isinstance(made, m.Message)
    return made


_type_info = functools.cache(mi.type_info)


def build(rng: random.Random, kind: mi.Type) -> Any:
    """A value that `kind` allows."""
    match kind:
        case mi.StructType():
            return kind.cls(**_fields(rng, kind))
        case mi.UnionType():
            return build(rng, rng.choice(kind.types))
        case mi.LiteralType():
            return rng.choice(kind.values)
        case mi.NoneType():
            return None
        case mi.BoolType():
            return rng.random() < 0.5
        case mi.IntType():
            low = kind.ge if kind.ge is not None else -(2**63)
            high = kind.le if kind.le is not None else 2**63 - 1
            return rng.choice((low, high, rng.randint(low, high), rng.randint(low, low + 9)))
        case mi.FloatType():
            low_f = max(x for x in (kind.ge, kind.gt, -1e9) if x is not None)
            high_f = kind.le if kind.le is not None else 1e9
            return rng.uniform(max(low_f, 1e-3) if kind.gt is not None else low_f, high_f)
        case mi.BytesType():
            return rng.randbytes(_size(rng, kind.min_length, kind.max_length))
        case mi.StrType():
            return _text(rng, kind)
        case mi.ListType():
            n = _size(rng, kind.min_length, kind.max_length)
            return [build(rng, kind.item_type) for _ in range(n)]
        case mi.TupleType():
            return tuple(build(rng, item) for item in kind.item_types)
        case mi.DictType():
            n = _size(rng, kind.min_length, kind.max_length)
            return {build(rng, kind.key_type): build(rng, kind.value_type) for _ in range(n)}
    raise NotImplementedError(f"no way to make a {kind}")


def _fields(rng: random.Random, kind: mi.StructType) -> dict[str, Any]:
    """All required fields, and some of the others."""
    return {
        field.name: build(rng, field.type)
        for field in kind.fields
        if field.required or rng.random() < 0.5
    }


def _size(rng: random.Random, low: int | None, high: int | None) -> int:
    size = max(low or 0, rng.choice(SIZES))
    return size if high is None else min(size, high)


def _text(rng: random.Random, kind: mi.StrType) -> str:
    if kind.pattern is not None:
        return BY_PATTERN[kind.pattern](rng)
    low = kind.min_length or 0
    word = rng.choice(WORDS).ljust(low, "x")
    return word if kind.max_length is None else word[: kind.max_length]


def mutate(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """The same builtin tree with one thing in it wrong, or everything below a point replaced."""
    if rng.random() < 0.15 or depth > 6:
        return rng.choice(HOSTILE)
    if isinstance(value, dict) and value:
        return _mutate_map(rng, value, depth)
    if isinstance(value, list) and value:
        changed = list(value)
        at = rng.randrange(len(changed))
        changed[at] = mutate(rng, changed[at], depth + 1)
        return changed * rng.choice((1, 1, 1, 500))
    return rng.choice(HOSTILE)


def _mutate_map(rng: random.Random, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    changed = dict(value)
    key = rng.choice(list(changed))
    match rng.randrange(4):
        case 0:
            del changed[key]
        case 1:
            changed[rng.choice(("extra", 7, b"type", ""))] = rng.choice(HOSTILE)
        case _:
            changed[key] = mutate(rng, changed[key], depth + 1)
    return changed


HOSTILE: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    2**63,
    2**64 - 1,
    -(2**63),
    1.5,
    float("nan"),
    float("inf"),
    "",
    "j1\n",
    "x" * 5000,
    "\x00\x1b[2J",
    b"",
    b"\xff" * 100,
    [],
    [[[[[[]]]]]],
    {},
    {"type": "Heartbeat"},
    [{}] * 100,
    msgspec.msgpack.Ext(1, b"x"),
)
