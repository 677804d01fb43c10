"""A LinkSpec as the arguments of `tc qdisc … netem`.

Source of the grammar: `tc-netem(8)` and `tc/q_netem.c` of iproute2 6.1.
"""

from __future__ import annotations

from netem import units
from netem.spec import Distribution, LinkSpec


def netem_arguments(spec: LinkSpec, *, complete: bool = False) -> tuple[str, ...]:
    """Arguments after the word `netem`; a perfect link has only its queue limit.

    `complete` names what the spec leaves at 0 too: `tc qdisc change` keeps what
    it isn't told.
    """
    return (
        *("limit", str(spec.queue_packets)),
        *_delay(spec, complete),
        *_loss(spec, complete),
        *_chance("duplicate", spec.duplicate, complete),
        *_chance("corrupt", spec.corrupt, complete),
        *_reorder(spec, complete),
        *(("rate", f"{spec.rate_bps}bit") if spec.rate_bps or complete else ()),
        *(("seed", str(spec.seed)) if spec.seed else ()),
    )


def _delay(spec: LinkSpec, complete: bool) -> tuple[str, ...]:
    if not spec.delay_ms and not complete:
        return ()
    words: tuple[str, ...] = ("delay", units.TIME.write(spec.delay_ms))
    if spec.jitter_ms or complete:
        words += (units.TIME.write(spec.jitter_ms), units.PROBABILITY.write(spec.correlation))
    if spec.distribution is not Distribution.UNIFORM:
        words += ("distribution", str(spec.distribution))
    return words


def _loss(spec: LinkSpec, complete: bool) -> tuple[str, ...]:
    if spec.bursts is not None:
        return ("loss", "gemodel", *map(units.PROBABILITY.write, spec.bursts.numbers))
    # `random` is said, for `loss 5%` is short for it and `loss 0%` must leave a gemodel.
    share = units.PROBABILITY.write(spec.loss)
    return ("loss", "random", share) if spec.loss or complete else ()


def _chance(word: str, value: float, complete: bool) -> tuple[str, ...]:
    return (word, units.PROBABILITY.write(value)) if value or complete else ()


def _reorder(spec: LinkSpec, complete: bool) -> tuple[str, ...]:
    if not spec.reorder and not complete:
        return ()
    chances = map(units.PROBABILITY.write, (spec.reorder, spec.reorder_correlation))
    return ("reorder", *chances, *(("gap", str(spec.gap)) if spec.gap else ()))
