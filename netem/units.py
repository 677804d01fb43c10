"""The units of a LinkSpec's text: `10%`, `50ms`, `100mbit`, plain counts.

Text and value convert without loss in both directions: `read(write(value)) ==
value` for every value that a field can hold. Floats go through their shortest
decimal form, and decimal shifts are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from netem.errors import BadSpec

# No value has more digits; text with more is refused before it is converted.
TEXT_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Unit:
    """How one kind of value is written.

    `suffixes` maps each accepted suffix to its worth in the stored unit; the
    first is the one that a fraction is written in. `whole` values are integers.
    """

    suffixes: Mapping[str, Decimal]
    example: str
    whole: bool = False

    def read(self, key: str, text: str) -> float | int:
        """The value of `text`; `key` is for messages. A plain 0 needs no suffix.

        Raises:
            BadSpec: no number, no suffix or an unknown one, or a fraction of a whole.
        """
        number, suffix = _split(text)
        value = _decimal(number) if len(text) <= TEXT_MAX else None
        if value is None:
            raise BadSpec(f"{key}={text[:TEXT_MAX]} is no number: write it like {self.example}")
        if suffix not in self.suffixes and (suffix or value != 0):
            known = ", ".join(s for s in self.suffixes if s)
            wrong = f"the unknown unit {suffix!r}" if suffix else "no unit"
            takes = f"units are {known}" if known else "it is a plain count"
            raise BadSpec(f"{key}={text} has {wrong}; {takes}: write it like {self.example}")
        scaled = value * self.suffixes.get(suffix, Decimal(1))
        if not self.whole:
            return float(scaled)
        if scaled != scaled.to_integral_value():
            raise BadSpec(f"{key}={text} is a fraction of its smallest unit: round it")
        return int(scaled)

    def write(self, value: float | int) -> str:
        """Text that reads back as `value`."""
        exact = Decimal(value) if self.whole else Decimal(repr(float(value)))
        if self.whole:
            for suffix, worth in reversed(list(self.suffixes.items())):
                if exact % worth == 0:
                    return f"{_plain(exact / worth)}{suffix}"
        suffix, worth = next(iter(self.suffixes.items()))
        return f"{_plain(exact / worth)}{suffix}"


# The first suffix of each is the one to write; whole units take the largest that divides.
PROBABILITY: Final = Unit({"%": Decimal("0.01")}, "10% or 0.5%")
TIME: Final = Unit({"ms": Decimal(1), "us": Decimal("0.001"), "s": Decimal(1000)}, "50ms")
RATE: Final = Unit(
    {
        "bit": Decimal(1),
        "kbit": Decimal(10**3),
        "mbit": Decimal(10**6),
        "gbit": Decimal(10**9),
    },
    "100mbit",
    whole=True,
)
COUNT: Final = Unit({"": Decimal(1)}, "1000", whole=True)


def _split(text: str) -> tuple[str, str]:
    """Number and suffix; the number ends at the first letter but an exponent's `e`."""
    number = text.rstrip("%abcdefghijklmnopqrstuvwxyz")
    return number, text[len(number) :]


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    # Decimal takes digits of every script, underscores and 1e999999.
    return value if value.is_finite() and set(text) <= set("0123456789.-") else None


def _plain(value: Decimal) -> str:
    """Without an exponent and without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
