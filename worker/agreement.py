"""How far a faster way to the logits may stray from the exact one, and still be taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AGREEMENT_MIN = 0.99
"""Least share of images whose best class stays the same."""
TIE = 0.02
"""Two classes whose probabilities differ by less are a tie: rounding may decide it."""


def same_best(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Share of rows of logits [n, classes] with the same best class, from 0 to 1."""
    return float((exact.argmax(1) == found.argmax(1)).mean())


def agreement(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """As `same_best`, but a class that ties with the best in `exact` counts as the same.

    Measured: torch's bfloat16 differs from float32 in 2 of 100 photographs, and both
    are ties.
    """
    shares = _softmax(exact)
    rows = np.arange(len(shares))
    lost = shares.max(1) - shares[rows, found.argmax(1)]
    return float((lost < TIE).mean())


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    shares: NDArray[np.float64] = exponents / exponents.sum(1, keepdims=True)
    return shares
