"""What a link can have and what it can't: the limits of a LinkSpec, and their checks.

The numbers are those of `sch_netem` and of IP where they have one, and round
ones elsewhere. Each check names the value, the limit and what to write instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netem import units
from netem.errors import BadSpec

if TYPE_CHECKING:
    from netem.spec import LinkSpec

DELAY_MAX_MS: Final = 240_000.0
"""tc of iproute2 6.1 counts in 64 ns, and to 2^32: 274 s."""
JITTER_MAX_MS: Final = 2_000.0
"""`sch_netem` cuts it at 2^31 ns without a word."""
TIME_MIN_MS: Final = 0.001
RATE_MIN_BPS: Final = 1_000
RATE_MAX_BPS: Final = 1_000_000_000_000
LIMIT_DEFAULT_PACKETS: Final = 1_000
"""The queue of `sch_netem` where none is asked for."""
LIMIT_MAX_PACKETS: Final = 1_000_000
GAP_MAX: Final = 1_000_000
MTU_MIN_BYTES: Final = 68
"""The smallest that IPv4 allows, RFC 791; IPv6 needs 1,280."""
MTU_MAX_BYTES: Final = 65_535
SEED_MAX: Final = 2**64 - 1
PROBABILITY_MIN: Final = 2.0**-32
"""The smallest above 0 that `sch_netem` can express."""


_RANGES: Final = (
    ("delay_ms", "delay", units.TIME, TIME_MIN_MS, DELAY_MAX_MS),
    ("jitter_ms", "jitter", units.TIME, TIME_MIN_MS, JITTER_MAX_MS),
    ("gap", "gap", units.COUNT, 1, GAP_MAX),
    ("rate_bps", "rate", units.RATE, RATE_MIN_BPS, RATE_MAX_BPS),
    ("limit_packets", "limit", units.COUNT, 1, LIMIT_MAX_PACKETS),
    ("mtu_bytes", "mtu", units.COUNT, MTU_MIN_BYTES, MTU_MAX_BYTES),
    ("seed", "seed", units.COUNT, 1, SEED_MAX),
)
_PROBABILITIES: Final = (
    *("loss", "correlation", "reorder", "reorder_correlation", "duplicate", "corrupt"),
)


def check(spec: LinkSpec) -> None:
    """Raise BadSpec for the first value that no link can have."""
    for name in _PROBABILITIES:
        check_probability(name, getattr(spec, name))
    for name, key, unit, low, high in _RANGES:
        _check_range(key, unit, getattr(spec, name), low, high)
    for problem in (_loss_problem(spec), _delay_problem(spec), _reorder_problem(spec)):
        if problem is not None:
            raise BadSpec(problem)
    if spec.rate_bps % 8 != 0:
        raise BadSpec(
            f"rate={units.RATE.write(spec.rate_bps)} is no whole number of bytes a second: "
            f"take a multiple of 8 bit, such as {units.RATE.write(spec.rate_bps // 8 * 8)}"
        )


def check_probability(key: str, value: float) -> None:
    """Raise BadSpec unless `value` is a probability that `sch_netem` can express."""
    if not _is_number(value):
        raise BadSpec(f"{key} is {value!r}, and must be a number from 0 to 1")
    if not 0 <= value <= 1:
        raise BadSpec(f"{key}={units.PROBABILITY.write(value)} is no probability: give 0% to 100%")
    if 0 < value < PROBABILITY_MIN:
        raise BadSpec(
            f"{key}={units.PROBABILITY.write(value)} is less than the kernel can count: give "
            f"{units.PROBABILITY.write(PROBABILITY_MIN)} or more, or 0"
        )


def _check_range(key: str, unit: units.Unit, value: float, low: float, high: float) -> None:
    if not _is_number(value) or (unit.whole and not isinstance(value, int)):
        kind = "whole number" if unit.whole else "number"
        raise BadSpec(f"{key} is {value!r}, and must be a {kind}")
    if value != 0 and not low <= value <= high:
        shown = [unit.write(x) for x in (value, low, high)]
        raise BadSpec(
            f"{key}={shown[0]} is out of range: from {shown[1]} to {shown[2]}, or 0 for none"
        )


def _is_number(value: object) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and abs(value) < float("inf")  # type: ignore[arg-type]


def _loss_problem(spec: LinkSpec) -> str | None:
    if spec.loss > 0 and spec.bursts is not None:
        loss = units.PROBABILITY.write(spec.loss)
        return f"loss={loss} and bursts={spec.bursts} exclude each other: keep one"
    return None


def _delay_problem(spec: LinkSpec) -> str | None:
    jitter, delay = (units.TIME.write(x) for x in (spec.jitter_ms, spec.delay_ms))
    if spec.jitter_ms > spec.delay_ms:
        return (
            f"jitter={jitter} is more than delay={delay}, and no packet arrives before it was "
            f"sent: set delay={jitter} or more"
        )
    if spec.jitter_ms == 0 and spec.distribution != "uniform":
        return f"distribution={spec.distribution} shapes the jitter, and there is none: set jitter"
    if spec.jitter_ms == 0 and spec.correlation > 0:
        correlation = units.PROBABILITY.write(spec.correlation)
        return f"correlation={correlation} is that of the jitter, and there is none: set jitter"
    return None


def _reorder_problem(spec: LinkSpec) -> str | None:
    if spec.reorder > 0 and spec.delay_ms == 0:
        reorder = units.PROBABILITY.write(spec.reorder)
        return f"reorder={reorder} lets packets skip their delay, and there is none: set delay"
    if spec.reorder == 0 and spec.gap > 0:
        return f"gap={spec.gap} says which packets may be reordered: set reorder, such as 100%"
    if spec.reorder == 0 and spec.reorder_correlation > 0:
        correlation = units.PROBABILITY.write(spec.reorder_correlation)
        return f"reorder_correlation={correlation} is that of reorder: set reorder"
    return None
