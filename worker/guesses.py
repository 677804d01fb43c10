"""Logits to the five best classes, with confidences that never sum to more than 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wire.messages import Guess

TOP = 5
_SHRINK = 1.0 - 2.0**-40
"""Makes up for rounding in the softmax and in whoever sums five of its values."""


def top_guesses(logits: NDArray[np.float32], classes: list[str]) -> list[Guess]:
    """Best first; equal logits in class order. `logits` has one value per class."""
    order = np.argsort(-logits, kind="stable")[:TOP]
    confidences = _softmax(logits)[order] * _SHRINK
    return [
        Guess(label=classes[index], class_id=int(index), confidence=float(confidence))
        for index, confidence in zip(order.tolist(), confidences, strict=True)
    ]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    exponents: NDArray[np.float64] = np.exp(wide - wide.max())
    shares: NDArray[np.float64] = exponents / exponents.sum()
    return shares
