"""LinkSpecs for hypothesis: every one that a link can have."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from netem import limits
from netem.spec import Distribution, GilbertElliott, LinkSpec

_POSITIVE = st.floats(limits.PROBABILITY_MIN, 1.0)
_CHANCE = st.just(0.0) | _POSITIVE
_DELAYS = st.floats(limits.TIME_MIN_MS, limits.DELAY_MAX_MS)


def _count(low: int, high: int) -> st.SearchStrategy[int]:
    return st.just(0) | st.integers(low, high)


BURSTS = st.builds(GilbertElliott, p=_POSITIVE, r=_POSITIVE, bad_loss=_CHANCE, good_loss=_CHANCE)
LOSSES = (
    st.just({})
    | st.fixed_dictionaries({"loss": _CHANCE})
    | st.fixed_dictionaries({"bursts": BURSTS})
)
JITTERS = st.fixed_dictionaries(
    {"distribution": st.sampled_from(Distribution), "correlation": _CHANCE}
)


@st.composite
def link_specs(draw: st.DrawFn) -> LinkSpec:
    """Any valid LinkSpec."""
    given: dict[str, Any] = dict(draw(LOSSES))
    if draw(st.booleans()):
        given["delay_ms"] = draw(_DELAYS)
        if draw(st.booleans()):
            given["jitter_ms"] = draw(
                st.floats(limits.TIME_MIN_MS, min(given["delay_ms"], limits.JITTER_MAX_MS))
            )
            given |= draw(JITTERS)
        if draw(st.booleans()):
            given["reorder"] = draw(_POSITIVE)
            given["reorder_correlation"] = draw(_CHANCE)
            given["gap"] = draw(_count(1, limits.GAP_MAX))
    return LinkSpec(
        **given,
        duplicate=draw(_CHANCE),
        corrupt=draw(_CHANCE),
        rate_bps=8 * draw(_count(limits.RATE_MIN_BPS // 8, limits.RATE_MAX_BPS // 8)),
        limit_packets=draw(_count(1, limits.LIMIT_MAX_PACKETS)),
        mtu_bytes=draw(_count(limits.MTU_MIN_BYTES, limits.MTU_MAX_BYTES)),
        seed=draw(_count(1, limits.SEED_MAX)),
    )
