"""Images to compare engines with, where nobody has brought any: dead leaves.

Discs of all sizes that hide one another, with radii from a power law, make
pictures with the statistics of photographs: edges, occlusion, the same look at every scale
(Lee, Mumford & Huang, "Occlusion Models for Natural Images", IJCV 41, 2001).
They are drawn from a seed, so nothing has to be shipped, licensed or fetched, and a
worker can measure before it has seen its first job.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAVES = 400
_RADIUS_MIN = 0.015
_RADIUS_MAX = 0.35
"""As shares of the side. The density of radii falls with their cube, as the model asks."""
_NOISE = 6.0
"""Standard deviation of what a camera's sensor adds, in steps of 255."""


def dead_leaves(count: int, px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return uint8 [count, px, px, 3]."""
    return np.stack([_scene(px, rng) for _ in range(count)])


def _scene(px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    canvas = np.full((px, px, 3), rng.uniform(0, 255, 3), dtype=np.float32)
    palette = rng.uniform(0, 255, (12, 3)).astype(np.float32)
    for radius in _radii(rng) * px:
        x, y = rng.uniform(0, px, 2)
        left, top = max(0, int(x - radius)), max(0, int(y - radius))
        rows = np.arange(top, min(px, int(y + radius) + 1))[:, None]
        columns = np.arange(left, min(px, int(x + radius) + 1))[None, :]
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        shade = palette[rng.integers(len(palette))] * rng.uniform(0.6, 1.2)
        canvas[top : top + rows.size, left : left + columns.size][inside] = shade
    canvas += rng.normal(0.0, _NOISE, canvas.shape).astype(np.float32)
    return canvas.clip(0, 255).astype(np.uint8)


def _radii(rng: np.random.Generator) -> NDArray[np.float64]:
    # Inverse of the distribution whose density is r^-3 between the two bounds.
    low, high = _RADIUS_MIN**-2, _RADIUS_MAX**-2
    radii: NDArray[np.float64] = (low + rng.random(_LEAVES) * (high - low)) ** -0.5
    return radii
