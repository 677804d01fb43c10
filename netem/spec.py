"""LinkSpec: what one direction of an emulated link does to packets.

Owns the fields and their text. Promises that every LinkSpec which exists is one
that a link can have (`limits.py`), and that `parse(str(spec)) == spec`
(`grammar.py`). Leaves to the backends how it is done.

The meaning of every field is that of `tc-netem(8)`, so that both backends do
the same: packets that wait for their delay count towards the queue limit;
jitter and `reorder` let packets overtake each other; loss is decided when a
packet enters the link.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any, Final

from netem import limits, units
from netem.errors import BadSpec


class Distribution(enum.StrEnum):
    """Shape of the jitter; `tc` has a table for each but `uniform`."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    PARETO = "pareto"
    PARETONORMAL = "paretonormal"


@dataclass(frozen=True, slots=True, kw_only=True)
class GilbertElliott:
    """Loss in bursts: a chain of two states, stepped once a packet.

    `p` leads from good to bad, `r` back; `bad_loss` is 1-h and `good_loss` 1-k,
    the loss inside each state. Source: Gilbert 1960, Elliott 1963; the letters
    are those of `tc-netem(8)`.
    """

    p: float
    r: float
    bad_loss: float = 1.0
    good_loss: float = 0.0

    def __post_init__(self) -> None:
        for letter, value in zip(("p", "r", "1-h", "1-k"), self.numbers, strict=True):
            limits.check_probability(f"bursts ({letter})", value)
        if self.p == 0 or self.r == 0:
            raise BadSpec(
                f"bursts={self}: with p or r of 0 the link stays in one state for ever: "
                "use loss= for independent loss"
            )

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """p, r, 1-h and 1-k, in the order of `tc`."""
        return self.p, self.r, self.bad_loss, self.good_loss

    @property
    def mean_loss(self) -> float:
        """Long-run fraction of packets lost: the stationary mix of both states."""
        bad = self.p / (self.p + self.r)
        return bad * self.bad_loss + (1 - bad) * self.good_loss

    def __str__(self) -> str:
        return ",".join(units.PROBABILITY.write(number) for number in self.numbers)


def _field(key: str, unit: units.Unit | None, default: Any) -> Any:
    """A field that is called `key` in text, where its value is written in `unit`."""
    return field(default=default, metadata={"key": key, "unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """One direction of a link. 0 (or None) in a field means that the link doesn't do that.

    Probabilities are fractions of packets, 0 to 1. `loss` is independent;
    `bursts` is instead of it. `jitter_ms` is half the width of a uniform
    distribution and the standard deviation of the others; `correlation` ties a
    packet's jitter to the one before. A reordered packet skips its delay: each
    `gap`-th one is a candidate, `reorder` its probability. `limit_packets` 0
    means 1,000. `mtu_bytes` is the interface's. `seed` 0 means chance.

    Raises:
        BadSpec: a value outside its limits, or one that makes no sense without another.
    """

    loss: float = _field("loss", units.PROBABILITY, 0.0)
    bursts: GilbertElliott | None = _field("bursts", None, None)  # noqa: RUF009
    delay_ms: float = _field("delay", units.TIME, 0.0)
    jitter_ms: float = _field("jitter", units.TIME, 0.0)
    distribution: Distribution = _field(  # noqa: RUF009
        "distribution", None, Distribution.UNIFORM
    )
    correlation: float = _field("correlation", units.PROBABILITY, 0.0)
    reorder: float = _field("reorder", units.PROBABILITY, 0.0)
    reorder_correlation: float = _field("reorder_correlation", units.PROBABILITY, 0.0)
    gap: int = _field("gap", units.COUNT, 0)
    duplicate: float = _field("duplicate", units.PROBABILITY, 0.0)
    corrupt: float = _field("corrupt", units.PROBABILITY, 0.0)
    rate_bps: int = _field("rate", units.RATE, 0)
    limit_packets: int = _field("limit", units.COUNT, 0)
    mtu_bytes: int = _field("mtu", units.COUNT, 0)
    seed: int = _field("seed", units.COUNT, 0)

    def __post_init__(self) -> None:
        limits.check(self)

    @property
    def mean_loss(self) -> float:
        """Long-run fraction of packets that the link loses by itself, queue overflow aside."""
        return self.loss if self.bursts is None else self.bursts.mean_loss

    @property
    def queue_packets(self) -> int:
        """The queue limit that holds."""
        return self.limit_packets or limits.LIMIT_DEFAULT_PACKETS

    @property
    def is_perfect(self) -> bool:
        """True if packets pass untouched; nothing has to be installed for it."""
        return self == LinkSpec()

    def __str__(self) -> str:
        """The text that `parse` takes, without what is at its default; `0` for a perfect link."""
        words = [
            f"{KEYS[name]}={write(name, value)}"
            for name, default in DEFAULTS.items()
            if (value := getattr(self, name)) != default
        ]
        return " ".join(words) or "0"


@dataclass(frozen=True, slots=True)
class Duplex:
    """Both directions, as the host at the near end sees them: what it sends, what it gets."""

    egress: LinkSpec = LinkSpec()
    ingress: LinkSpec = LinkSpec()

    @classmethod
    def both(cls, spec: LinkSpec) -> Duplex:
        """The same in each direction: a delay counts twice in a round trip."""
        return cls(egress=spec, ingress=spec)


KEYS: Final = {f.name: str(f.metadata["key"]) for f in fields(LinkSpec)}
"""Field to the key of its text."""
DEFAULTS: Final = {f.name: f.default for f in fields(LinkSpec)}
UNITS: Final[dict[str, units.Unit | None]] = {f.name: f.metadata["unit"] for f in fields(LinkSpec)}

PERFECT: Final = LinkSpec()
CUT: Final = LinkSpec(loss=1.0)
"""Nothing passes; what waits in the link's queue still arrives."""


def write(name: str, value: Any) -> str:
    """The text of one field's value."""
    unit = UNITS[name]
    return str(value) if unit is None else unit.write(value)
