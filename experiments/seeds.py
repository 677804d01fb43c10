"""A seed for each dimension of chance, all from one: change how faults are drawn, and the
arrivals stay as they were.

Pure. A stream is named by what it decides and by where in the run it stands, so
that a point drawn alone, again or in another order has the same chance.
"""

from __future__ import annotations

import enum
import zlib
from typing import Final

import numpy as np

SEED_MAX: Final = 2**63 - 1


class Dimension(enum.StrEnum):
    """What chance decides in a run."""

    ARRIVALS = "arrivals"
    FAULTS = "faults"
    IMAGES = "images"
    LINKS = "links"
    MESSAGES = "messages"
    ORDER = "order"
    RETRIES = "retries"
    BOOTSTRAP = "bootstrap"


def sequence(seed: int, dimension: Dimension, *place: int | str) -> np.random.SeedSequence:
    """The seed of one stream; `place` is, for example, a point's name and a replicate.

    Source: O'Neill's hash that `SeedSequence` uses; spawn keys keep streams apart.
    """
    words = [_word(dimension), *(_word(part) for part in place)]
    return np.random.SeedSequence(seed, spawn_key=tuple(words))


def stream(seed: int, dimension: Dimension, *place: int | str) -> np.random.Generator:
    """A generator of its own (Philox: Salmon et al., "Parallel Random Numbers", SC'11)."""
    return np.random.Generator(np.random.Philox(sequence(seed, dimension, *place)))


def number(seed: int, dimension: Dimension, *place: int | str) -> int:
    """One seed for a program that takes a number: 1 to 2^31-1."""
    return int(stream(seed, dimension, *place).integers(1, 2**31))


def _word(part: int | str) -> int:
    return part if isinstance(part, int) else zlib.crc32(part.encode())
