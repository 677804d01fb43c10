"""`wire/PROTOCOL.md` read by a program, and the types of `wire.messages` in its words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec import NODEFAULT
from msgspec import inspect as mi

import wire
from wire import messages as m
from wire.codec import (
    FROM_MASTER,
    FROM_ROLE,
    HANDSHAKE_FROM_CLIENT,
    HANDSHAKE_FROM_MASTER,
)

PAGE: Final = Path(wire.__file__).with_name("PROTOCOL.md")
INT_63: Final = 2**63 - 1
SCALARS: Final = {
    ("int", 0, INT_63): "count",
    ("int", 1, INT_63): "positive",
    ("float", 0, 1e9): "seconds",
    ("float", 0, 1e12): "ms",
}
POWERS: Final = {2**31 - 1: "2^31-1", 2**32 - 1: "2^32-1"}
JOB_STATES: Final = ("backoff", "cancelled", "failed", "leased", "queued", "succeeded")
PATTERNS: Final = {
    r"^j[0-9]{1,18}\Z": "job id",
    r"^s[0-9]{1,18}\Z": "submission id",
    r"^[0-9a-f]{64}\Z": "sha256",
    r"^[^\x00-\x1f\x7f-\x9f]+\Z": "peer name",
}
SIZES: Final[dict[tuple[int | None, int | None], str]] = {(1, 128): "name", (None, 4096): "text"}


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a message: its name, type and default as the page writes them."""

    field: str
    type: str
    default: str


def describe(kind: mi.Type) -> str:
    """A type in the page's words."""
    match kind:
        case mi.IntType():
            return _number("int", kind.ge, kind.le)
        case mi.FloatType():
            low = kind.ge if kind.gt is None else f"over {kind.gt:g}"
            return _number("float", low, kind.le)
        case mi.StrType():
            return _text(kind)
        case mi.BytesType():
            return "bin" + _size(kind.min_length, kind.max_length)
        case mi.ListType():
            return f"[{describe(kind.item_type)}]" + _size(kind.min_length, kind.max_length)
        case mi.TupleType():
            return f"[{', '.join(map(describe, kind.item_types))}]"
        case mi.DictType():
            pair = f"{describe(kind.key_type)}: {describe(kind.value_type)}"
            return f"{{{pair}}}" + _size(kind.min_length, kind.max_length)
        case mi.LiteralType():
            values = tuple(sorted(map(str, kind.values)))
            return "job state" if values == JOB_STATES else " / ".join(f'"{v}"' for v in values)
        case mi.UnionType():
            inner = [describe(t) for t in kind.types if not isinstance(t, mi.NoneType)]
            return " or ".join([*inner, "nil"] if kind.includes_none else inner)
        case mi.StructType():
            return kind.cls.__name__
        case mi.BoolType():
            return "bool"
    raise NotImplementedError(f"the page has no words for {kind}")


def _number(kind: str, low: Any, high: Any) -> str:
    named = SCALARS.get((kind, low, high))
    if named is not None:
        return named
    if low is None and high is None:
        return kind
    return f"{kind} {low} to {POWERS.get(high) or f'{high:.12g}'}"


def _text(kind: mi.StrType) -> str:
    if kind.pattern is not None:
        return PATTERNS[kind.pattern]
    named = SIZES.get((kind.min_length, kind.max_length))
    return named or "str" + _size(kind.min_length, kind.max_length)


def _size(low: int | None, high: int | None) -> str:
    if low is None and high is None:
        return ""
    if low == high:
        return f" x{low}"
    return f" x{low or 0}..{high}"


def _default(field: mi.Field) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is NODEFAULT else field.default
    if isinstance(value, bytes):
        return f'b"{value.decode()}"'
    return "nil" if value is None else json.dumps(value)


def rows_of(struct: type[Any]) -> list[Row]:
    """What the page must say of one message or part."""
    kind = mi.type_info(struct)
    assert isinstance(kind, mi.StructType)
    return [Row(f.encode_name, describe(f.type), _default(f)) for f in kind.fields]


def directions_of(message: type[m.Message]) -> str:
    """Who says it to whom."""
    said: list[str] = []
    if message in HANDSHAKE_FROM_CLIENT and message not in FROM_ROLE["web"]:
        said.append("client → master")
    if message in HANDSHAKE_FROM_MASTER and message not in FROM_MASTER["web"]:
        said.append("master → client")
    if said:
        return ", ".join(said)
    speakers = [role for role in ("worker", "web", "admin") if message in FROM_ROLE[role]]
    hearers = [role for role in ("worker", "web", "admin") if message in FROM_MASTER[role]]
    if len(speakers) == len(hearers) == 3:
        return "both ways"
    said = [f"{', '.join(speakers)} → master"] if speakers else []
    return ", ".join(said + ([f"master → {', '.join(hearers)}"] if hearers else []))


def read_page() -> dict[str, tuple[str, list[Row]]]:
    """Per heading of a message or part: its direction and its rows."""
    sections: dict[str, tuple[str, list[Row]]] = {}
    for block in re.split(r"^(?=#{2,4} )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading = re.match(r"#### `(\w+)`(?: · (.+))?\n", block)
        if heading is not None:
            sections[heading[1]] = (heading[2] or "", _rows(block))
    return sections


def _rows(block: str) -> list[Row]:
    rows = []
    for line in block.splitlines():
        cells = re.match(r"\| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|$", line)
        if cells is not None:
            rows.append(Row(cells[1], cells[2].strip("`"), cells[3].strip("`")))
    return rows
