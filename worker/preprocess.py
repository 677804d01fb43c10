"""RGB image to the network's input, as torchvision's classification preset does.

Exactly so by default. Otherwise only what the crop keeps is resampled, what comes as an
array by `worker.resample`, and large JPEGs may come in at a fraction of their size: half the
time, and the best class of real photographs stays the same
(`tests/unit/worker/test_fast_paths.py`).

Source of the arithmetic: torchvision 0.28, `transforms/_presets.py`
(`ImageClassification`) and `transforms/functional.py` (`resize` with one size,
`center_crop` with its padding, `pil_to_tensor`, `convert_image_dtype`,
`normalize`). Needs no torch, so that an engine without torch can use it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wire.card import Preprocessing
from wire.errors import EnvironmentFault
from worker.resample import Kept, resample

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
RESIZED_PIXELS_MAX = 4_000_000
"""Above this the resized image is never made whole: a 1×60,000 strip would be 256×15,360,000."""

RESAMPLED_PX_MAX = 1024
"""Larger crops stay with Pillow: `worker.resample` holds 12 bytes for each of their pixels."""

SCALE_MARGIN = 2
"""A JPEG is decoded at a fraction of its size down to so many times the resized side."""


class Preprocessor:
    """Resize, crop, scale and normalise for one model. Calls may come from several threads."""

    def __init__(self, recipe: Preprocessing, *, exact: bool = True) -> None:
        if recipe.interpolation not in _FILTERS:
            raise EnvironmentFault(
                "unknown_interpolation",
                f"the card asks for interpolation {recipe.interpolation!r}; "
                f"known are {', '.join(_FILTERS)}",
            )
        self._recipe = recipe
        self._exact = exact
        self._filter = _FILTERS[recipe.interpolation]
        is_small = recipe.crop_px <= RESAMPLED_PX_MAX
        self._resamples = not exact and is_small and recipe.interpolation == "bilinear"
        self._mean = np.array(recipe.mean, dtype=np.float32).reshape(3, 1, 1)
        self._std = np.array(recipe.std, dtype=np.float32).reshape(3, 1, 1)

    @property
    def is_exact(self) -> bool:
        """Whether it does as torchvision does, step by step."""
        return self._exact

    @property
    def input_px(self) -> int:
        """Side of the square that the network sees."""
        return self._recipe.crop_px

    @property
    def least_px(self) -> int | None:
        """Sides that a decoder must keep if it scales; None: it must not."""
        return None if self._exact else self._recipe.resize_px * SCALE_MARGIN

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return float32 [3, crop_px, crop_px], normalised, contiguous, from an RGB image."""
        scaled = self.pixels(image).transpose(2, 0, 1).astype(np.float32)
        scaled /= np.float32(255.0)
        scaled -= self._mean
        scaled /= self._std
        return np.ascontiguousarray(scaled)

    def pixels(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 [crop_px, crop_px, 3], resized and cropped, from an RGB image.

        An array is uint8 [height, width, 3].
        """
        if isinstance(image, np.ndarray) and not self._resamples:
            image = Image.fromarray(image)
        before = image.shape[1::-1] if isinstance(image, np.ndarray) else image.size
        size = resized_size((before[0], before[1]), self._recipe.resize_px)
        crop = self._recipe.crop_px
        x, y = _Window.of(size[0], crop), _Window.of(size[1], crop)
        if isinstance(image, np.ndarray):
            kept = resample(image, _kept(before[1], y), _kept(before[0], x))
        else:
            kept = np.asarray(self._cropped(image, size, x, y))
        if kept.shape == (crop, crop, 3):
            return kept
        canvas = np.zeros((crop, crop, 3), np.uint8)
        canvas[y.offset : y.offset + y.length, x.offset : x.offset + x.length] = kept
        return canvas

    def _cropped(
        self, image: Image.Image, size: tuple[int, int], x: _Window, y: _Window
    ) -> Image.Image:
        if not self._exact or size[0] * size[1] > RESIZED_PIXELS_MAX:
            return self._resize_part(image, x, y)
        whole = image.resize(size, self._filter)
        return whole.crop((x.start, y.start, x.start + x.length, y.start + y.length))

    def _resize_part(self, image: Image.Image, x: _Window, y: _Window) -> Image.Image:
        # Resamples only what the crop keeps. Differs from resizing the whole by at
        # most one step of 255, where Pillow's single-precision box rounds.
        across, down = image.width / x.size, image.height / y.size
        box = (
            x.start * across,
            y.start * down,
            min(image.width, (x.start + x.length) * across),
            min(image.height, (y.start + y.length) * down),
        )
        return image.resize((x.length, y.length), self._filter, box=box)


@dataclass(frozen=True, slots=True)
class _Window:
    """Along one axis of `size`: what a centre crop keeps, and where black padding puts it."""

    size: int
    start: int
    length: int
    offset: int

    @classmethod
    def of(cls, size: int, crop: int) -> _Window:
        """torchvision's `center_crop`: the odd pixel of padding goes right and down."""
        if size < crop:
            return cls(size, 0, size, (crop - size) // 2)
        return cls(size, round((size - crop) / 2.0), crop, 0)


def _kept(before: int, window: _Window) -> Kept:
    return Kept(before, window.size, window.start, window.length)


def resized_size(size: tuple[int, int], shorter_px: int) -> tuple[int, int]:
    """Width and height after the shorter side became `shorter_px` (the longer is floored)."""
    width, height = size
    if width <= height:
        return shorter_px, int(shorter_px * height / width)
    return int(shorter_px * width / height), shorter_px
