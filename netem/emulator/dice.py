"""Every draw that a LinkSpec asks for, each from a generator of its own.

A generator per purpose, so that more jitter does not change which packets are
lost: the same seed gives the same decisions to the same sequence of packets.
The models are those of Linux' `net/sched/sch_netem.c`, with floats from 0 to 1
where the kernel has 32-bit integers.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from netem.emulator.jitter import Draw, delays_s
from netem.spec import GilbertElliott, LinkSpec

Decide = Callable[[], bool]
"""True for a packet that it happens to; called once a packet."""


class Dice:
    """The draws of one direction; `None` where the LinkSpec never does it.

    `seed` names the sequence; two directions with the same text decide alike.
    """

    __slots__ = ("corrupts", "delay_s", "duplicates", "loses", "pick", "reorders")

    def __init__(self, spec: LinkSpec, seed: str) -> None:
        def generator(purpose: str) -> Random:
            return Random(f"{seed}/{purpose}")

        self.loses = _losses(spec, generator("loss"))
        self.duplicates = _happens(spec.duplicate, generator("duplicate"))
        self.corrupts = _happens(spec.corrupt, generator("corrupt"))
        self.pick = generator("bit").randrange
        self.delay_s = delays_s(spec, correlated(generator("delay"), spec.correlation))
        self.reorders = _reorders(spec, generator("reorder"))


def correlated(rng: Random, rho: float) -> Draw:
    """Draws of which each keeps the fraction `rho` of the one before.

    Source: `get_crandom`. As there, a high correlation narrows the draws around a half.
    """
    if rho == 0:
        return rng.random
    last = rng.random()

    def draw() -> float:
        nonlocal last
        last = rng.random() * (1 - rho) + last * rho
        return last

    return draw


def _happens(probability: float, rng: Random) -> Decide | None:
    if probability == 0:
        return None
    draw = rng.random
    return lambda: draw() < probability


def _losses(spec: LinkSpec, rng: Random) -> Decide | None:
    if spec.bursts is not None:
        return _gilbert_elliott(spec.bursts, rng)
    return _happens(spec.loss, rng)


def _gilbert_elliott(chain: GilbertElliott, rng: Random) -> Decide:
    """Source: `loss_gilb_ell`. It begins in the good state, and loses by the state before the
    step."""
    draw, bad = rng.random, False

    def loses() -> bool:
        nonlocal bad
        was_bad = bad
        if draw() < (chain.r if was_bad else chain.p):
            bad = not was_bad
        return draw() < (chain.bad_loss if was_bad else chain.good_loss)

    return loses


def _reorders(spec: LinkSpec, rng: Random) -> Decide | None:
    """Each `gap`-th packet since the last one that skipped its delay is a candidate."""
    if spec.reorder == 0:
        return None
    draw = correlated(rng, spec.reorder_correlation)
    waited, gap = 0, max(spec.gap, 1)

    def reorders() -> bool:
        nonlocal waited
        if waited < gap - 1 or draw() >= spec.reorder:
            waited += 1
            return False
        waited = 0
        return True

    return reorders
