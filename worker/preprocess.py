"""RGB image to the network's input, exactly as torchvision's classification preset does.

Source of the arithmetic: torchvision 0.28, `transforms/_presets.py`
(`ImageClassification`) and `transforms/functional.py` (`resize` with one size,
`center_crop` with its padding, `pil_to_tensor`, `convert_image_dtype`,
`normalize`). Needs no torch, so that an engine without torch can use it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wire.card import Preprocessing
from wire.errors import EnvironmentFault

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


class Preprocessor:
    """Resize, crop, scale and normalise for one model. Calls may come from several threads."""

    def __init__(self, recipe: Preprocessing) -> None:
        if recipe.interpolation not in _FILTERS:
            raise EnvironmentFault(
                "unknown_interpolation",
                f"the card asks for interpolation {recipe.interpolation!r}; "
                f"known are {', '.join(_FILTERS)}",
            )
        self._recipe = recipe
        self._filter = _FILTERS[recipe.interpolation]
        self._mean = np.array(recipe.mean, dtype=np.float32).reshape(3, 1, 1)
        self._std = np.array(recipe.std, dtype=np.float32).reshape(3, 1, 1)

    @property
    def input_px(self) -> int:
        """Side of the square that the network sees."""
        return self._recipe.crop_px

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return float32 [3, crop_px, crop_px], contiguous, from an RGB image."""
        pixels = np.asarray(self._cropped(image)).transpose(2, 0, 1)
        scaled = pixels.astype(np.float32)
        scaled /= np.float32(255.0)
        scaled -= self._mean
        scaled /= self._std
        return np.ascontiguousarray(scaled)

    def _cropped(self, image: Image.Image) -> Image.Image:
        width, height = resized_size(image.size, self._recipe.resize_px)
        crop = self._recipe.crop_px
        if width * height > RESIZED_PIXELS_MAX and min(width, height) >= crop:
            return self._cut_out(image, width, height)
        resized = image
        if image.size != (width, height):
            resized = image.resize((width, height), self._filter)
        left, top = round((width - crop) / 2.0), round((height - crop) / 2.0)
        if min(width, height) < crop:
            resized, left, top = _padded(resized, crop)
        return resized.crop((left, top, left + crop, top + crop))

    def _cut_out(self, image: Image.Image, width: int, height: int) -> Image.Image:
        # Resamples only the part that the crop keeps. Differs from resizing the whole
        # by at most one step of 255, where Pillow's single-precision box rounds.
        crop = self._recipe.crop_px
        left, top = round((width - crop) / 2.0), round((height - crop) / 2.0)
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + crop) * across, (top + crop) * down)
        return image.resize((crop, crop), self._filter, box=box)


def resized_size(size: tuple[int, int], shorter_px: int) -> tuple[int, int]:
    """Width and height after the shorter side became `shorter_px` (the longer is floored)."""
    width, height = size
    if width <= height:
        return shorter_px, int(shorter_px * height / width)
    return int(shorter_px * width / height), shorter_px


def _padded(image: Image.Image, crop: int) -> tuple[Image.Image, int, int]:
    # torchvision pads with black, the odd pixel on the right and at the bottom, and
    # then crops the centre of whatever is still larger.
    width, height = max(image.width, crop), max(image.height, crop)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas, round((width - crop) / 2.0), round((height - crop) / 2.0)
