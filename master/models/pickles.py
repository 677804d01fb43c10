"""What a pickle would build, read as data: nothing is imported, called or trusted.

`pickletools.genops` only tokenises. This module gives the tokens that torch's
state dicts use their stack meaning, with inert stand-ins where unpickling would
import a name or call it. A program with any other token is `Unfamiliar`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

# A state dict takes some 15 tokens a tensor; the largest of torchvision's has 1,500 tensors.
_OPS_MAX: Final = 1_000_000


class Unfamiliar(Exception):
    """The bytes are no pickle, are cut off, or use a token that state dicts don't."""


@dataclass(frozen=True, slots=True)
class Name:
    """An importable name (`torch._utils._rebuild_tensor_v2`), not imported."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call of something with arguments, not made."""

    target: Any
    arguments: Any


@dataclass(frozen=True, slots=True)
class Reference:
    """A persistent id: torch's pointer to a storage."""

    key: Any


@dataclass(slots=True)
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def last(self, count: int) -> tuple[Any, ...]:
        return tuple(self.stack.pop() for _ in range(count))[::-1]


def read_pickle(file: BinaryIO) -> Any:
    """The value of the pickle that starts here; the file stands behind it afterwards.

    Raises:
        Unfamiliar: see there.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= _OPS_MAX:
                raise Unfamiliar(f"more than {_OPS_MAX} tokens")
            if opcode.name == "STOP":
                return machine.stack.pop()
            _step(machine, opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise Unfamiliar(f"{type(error).__name__}: {error}") from error
    raise Unfamiliar("it does not end")


def _step(machine: _Machine, name: str, argument: Any) -> None:
    if name in _IGNORED:
        return
    if name in _LITERALS:
        machine.stack.append(argument)
    elif name in _CONSTANTS:
        machine.stack.append(_CONSTANTS[name]())
    elif name in _ACTIONS:
        _ACTIONS[name](machine, argument)
    else:
        raise Unfamiliar(f"token {name}")


def _global(machine: _Machine, argument: str) -> None:
    machine.stack.append(Name(argument.replace(" ", ".")))


def _stack_global(machine: _Machine, _: Any) -> None:
    module, attribute = machine.last(2)
    machine.stack.append(Name(f"{module}.{attribute}"))


def _mark(machine: _Machine, _: Any) -> None:
    machine.marks.append(len(machine.stack))


def _tuple(machine: _Machine, _: Any) -> None:
    machine.stack.append(tuple(machine.since_mark()))


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def act(machine: _Machine, _: Any) -> None:
        machine.stack.append(machine.last(count))

    return act


def _put(machine: _Machine, argument: int) -> None:
    machine.memo[argument] = machine.stack[-1]


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _get(machine: _Machine, argument: int) -> None:
    machine.stack.append(machine.memo[argument])


def _persistent(machine: _Machine, _: Any) -> None:
    machine.stack.append(Reference(machine.stack.pop()))


def _call(machine: _Machine, _: Any) -> None:
    target, arguments = machine.last(2)
    ordered = target == Name("collections.OrderedDict") and arguments == ()
    machine.stack.append({} if ordered else Call(target, arguments))


def _build(machine: _Machine, _: Any) -> None:
    # The state goes to an object that we don't make; of an OrderedDict it is `_metadata`.
    machine.stack.pop()


def _set_item(machine: _Machine, _: Any) -> None:
    key, value = machine.last(2)
    _store(machine.stack[-1], key, value)


def _set_items(machine: _Machine, _: Any) -> None:
    pairs = machine.since_mark()
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        _store(machine.stack[-1], key, value)


def _store(target: Any, key: Any, value: Any) -> None:
    # Hashing or printing a tuple nested by the memo takes time exponential in the file's size.
    if not isinstance(key, str | int):
        raise Unfamiliar(f"a dict key of type {type(key).__name__}")
    target[key] = value


def _append(machine: _Machine, _: Any) -> None:
    value = machine.stack.pop()
    machine.stack[-1].append(value)


def _appends(machine: _Machine, _: Any) -> None:
    values = machine.since_mark()
    machine.stack[-1].extend(values)


_IGNORED: Final = frozenset({"PROTO", "FRAME"})
_LITERALS: Final = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"}
)
_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_ACTIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "MARK": _mark,
    "TUPLE": _tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "BINPERSID": _persistent,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "BUILD": _build,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "APPEND": _append,
    "APPENDS": _appends,
}
