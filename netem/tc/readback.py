"""What `tc -j -s qdisc` says, as a LinkSpec and counters, and where it differs from a request.

tc prints six significant digits (`%g`), and the kernel holds probabilities as
32-bit fractions; `TOLERANCE` is what both together may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from netem.backend import Counters
from netem.spec import DEFAULTS, KEYS, Distribution, GilbertElliott, LinkSpec, write

TOLERANCE: Final = 2e-5
"""Relative; half of the sixth digit is 5e-6."""
PROBABILITY_TOLERANCE: Final = 2.0**-31
"""Absolute; the kernel's step is 2^-32."""
TIME_TOLERANCE_MS: Final = 1e-4
"""Absolute; tc of iproute2 6.1 counts in 64 ns."""

Json = Mapping[str, Any]


def spec_of(qdisc: Json, *, distribution: Distribution, mtu_bytes: int) -> LinkSpec:
    """The LinkSpec of one netem qdisc.

    The kernel doesn't say which table shapes the jitter, and the MTU is not the
    qdisc's: both come from our own record.
    """
    options: Json = qdisc.get("options", {})
    delay: Json = options.get("delay", {})
    reorder: Json = options.get("reorder", {})
    jitter_ms = _round(1e3 * float(delay.get("jitter", 0)))
    limit, rate = int(options.get("limit", 0)), options.get("rate", {}).get("rate", 0)
    return LinkSpec(
        loss=float(options.get("loss-random", {}).get("loss", 0)),
        bursts=_bursts(options.get("loss-gemodel")),
        delay_ms=max(jitter_ms, _round(1e3 * float(delay.get("delay", 0)))),
        jitter_ms=jitter_ms,
        distribution=distribution if jitter_ms else Distribution.UNIFORM,
        correlation=float(delay.get("correlation", 0)) if jitter_ms else 0.0,
        reorder=float(reorder.get("reorder", 0)),
        reorder_correlation=float(reorder.get("correlation", 0)),
        gap=int(options.get("gap", 0)) if reorder else 0,
        duplicate=float(options.get("duplicate", {}).get("duplicate", 0)),
        corrupt=float(options.get("corrupt", {}).get("corrupt", 0)),
        rate_bps=8 * int(rate),
        limit_packets=limit,
        mtu_bytes=mtu_bytes,
        seed=int(options.get("seed", 0)),
    )


def counters_of(qdisc: Json) -> Counters:
    """Its statistics; `packets` are those that left it."""
    return Counters(
        delivered_packets=int(qdisc.get("packets", 0)),
        delivered_bytes=int(qdisc.get("bytes", 0)),
        dropped_packets=int(qdisc.get("drops", 0)),
        queued_packets=int(qdisc.get("qlen", 0)),
    )


def differences(requested: LinkSpec, found: LinkSpec) -> list[tuple[str, str]]:
    """Pairs of text, as requested and as found, of every field that is not the same."""
    pairs = []
    for name in DEFAULTS:
        if name == "seed" and not requested.seed:
            continue  # chance was asked for, and the kernel chose a seed
        want, have = _comparable(requested, name), _comparable(found, name)
        absolute = TIME_TOLERANCE_MS if name.endswith("_ms") else PROBABILITY_TOLERANCE
        if not _same(want, have, absolute):
            texts = [f"{KEYS[name]}={write(name, getattr(s, name))}" for s in (requested, found)]
            pairs.append((texts[0], texts[1]))
    return pairs


def _comparable(spec: LinkSpec, name: str) -> Any:
    if name == "limit_packets":
        return spec.queue_packets
    if name == "gap":
        # The kernel takes 1 where none is given: every packet may be reordered.
        return spec.gap or (1 if spec.reorder else 0)
    return getattr(spec, name)


def _same(want: Any, have: Any, absolute: float) -> bool:
    if want is None or have is None:
        return want is have
    if isinstance(want, GilbertElliott):
        pairs = zip(want.numbers, have.numbers, strict=True)
        return all(_same(one, other, absolute) for one, other in pairs)
    if isinstance(want, float):
        return bool(abs(want - have) <= max(TOLERANCE * abs(want), absolute))
    return bool(want == have)


def _bursts(options: Json | None) -> GilbertElliott | None:
    if options is None:
        return None
    p, r, bad_loss, good_loss = (float(options.get(k, 0)) for k in ("p", "r", "1-h", "1-k"))
    return GilbertElliott(p=p, r=r, bad_loss=bad_loss, good_loss=good_loss)


def _round(value_ms: float) -> float:
    """Without what multiplying by 1,000 adds behind the digits that tc prints."""
    return float(f"{value_ms:.9g}")
