"""Antialiased bilinear resize of what a crop keeps, as products of small matrices.

Each pixel of the result is a weighted mean of its neighbours within a triangle, first across,
then down. Four columns (eight rows) of the result need few columns (rows) of the
image, so that a pass is some dozens of small dense products, which numpy gives to its BLAS:
half of the time of Pillow's loops (docs/performance.md). Weights, order and rounding are Pillow's,
whose weights are whole numbers, so that of a hundred values one or two differ, by one step.

Source of the weights: Pillow 13, `src/libImaging/Resample.c` (`precompute_coeffs` with
`bilinear_filter`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

ROWS: Final = 8
COLUMNS: Final = 4
"""Of the result in one product: fewer cost more calls, more cost more products with zeros."""
PLANS_MAX: Final = 64
"""Sizes whose matrices are kept, 0.2 MB each at 224 px."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Kept:
    """Along one axis, resized from `before` to `after` pixels: `length` of them from `start` on."""

    before: int
    after: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _Bands:
    """Along one axis: block b of the result is `matrices[b]` times `width` pixels from
    `first[b]` on."""

    first: list[int]
    width: int
    matrices: Floats

    @property
    def end(self) -> int:
        """The pixel after the last one that is needed."""
        return max(self.first) + self.width


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one shape needs: the part of the image, and each product's slices and matrix."""

    rows: slice
    columns: slice
    down: list[tuple[slice, slice, Floats]]
    across: list[tuple[slice, slice, Floats]]


def resample(image: NDArray[np.uint8], down: Kept, across: Kept) -> NDArray[np.uint8]:
    """Return uint8 [down.length, across.length, 3] from uint8 [down.before, across.before, 3]."""
    plan = _plan(down, across)
    part = image[plan.rows, plan.columns].astype(np.float32)
    part = part.reshape(len(part), -1)
    middle = np.empty((len(part), across.length * 3), np.float32)
    for target, source, matrix in plan.across:
        np.matmul(part[:, source], matrix, out=middle[:, target])
    # Pillow keeps 8 bits between its passes. Without that a sixth of all values differ by one
    # step, and 1 of 100 photographs got another best class.
    np.rint(middle, out=middle)
    result = np.empty((down.length, across.length * 3), np.float32)
    for target, source, matrix in plan.down:
        np.matmul(matrix, middle[source], out=result[target])
    result += np.float32(0.5)  # to the nearest: the conversion cuts off
    return result.astype(np.uint8).reshape(down.length, across.length, 3)


@lru_cache(PLANS_MAX)
def _plan(down: Kept, across: Kept) -> _Plan:
    vertical, horizontal = _bands(down, ROWS), _bands(across, COLUMNS)
    top, left, width = min(vertical.first), min(horizontal.first), horizontal.width
    # Channels lie beside each other: the same weights for each of the three.
    mixing = np.einsum("bqp,cd->bpcqd", horizontal.matrices, np.eye(3, dtype=np.float32))
    mixing = np.ascontiguousarray(mixing.reshape(len(mixing), width * 3, COLUMNS * 3))
    return _Plan(
        rows=slice(top, vertical.end),
        columns=slice(left, horizontal.end),
        down=[
            (
                slice(block * ROWS, block * ROWS + ROWS),
                slice(first - top, first - top + vertical.width),
                vertical.matrices[block][: down.length - block * ROWS],
            )
            for block, first in enumerate(vertical.first)
        ],
        across=[
            (
                slice(block * COLUMNS * 3, (block + 1) * COLUMNS * 3),
                slice((first - left) * 3, (first - left + width) * 3),
                mixing[block][:, : (across.length - block * COLUMNS) * 3],
            )
            for block, first in enumerate(horizontal.first)
        ],
    )


def _bands(axis: Kept, block: int) -> _Bands:
    first, weights = _weights(axis)
    pixels = np.arange(axis.length)
    at = first[:, None] + np.arange(weights.shape[1])
    starts = first[::block]
    # All blocks as wide as the widest, moved back where the image ends.
    width = min(axis.before, int((at[:, -1] - starts[pixels // block]).max()) + 1)
    starts = np.minimum(starts, axis.before - width)
    matrices = np.zeros((len(starts), block, width), np.float32)
    inside = at < axis.before
    which = np.broadcast_to(pixels[:, None], at.shape)[inside]
    place = at[inside] - starts[which // block]
    matrices[which // block, which % block, place] = weights[inside]
    return _Bands(starts.tolist(), width, matrices)


def _weights(axis: Kept) -> tuple[NDArray[np.int64], Floats]:
    """For each pixel of the result its first neighbour, and the weights [length, taps]."""
    scale = axis.before / axis.after
    reach = max(scale, 1.0)
    centre = (axis.start + np.arange(axis.length) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), axis.before)
    at = first[:, None] + np.arange(int((end - first).max()))
    distance = np.abs(at + 0.5 - centre[:, None]) / reach
    weights = np.where(at < end[:, None], np.maximum(1.0 - distance, 0.0), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return first, weights.astype(np.float32)
