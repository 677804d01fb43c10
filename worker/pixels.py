"""Any decoded Pillow image to 8-bit RGB, the way a person sees it.

What is chosen, and why:

- transparency is laid over white, as a browser shows it on a white page;
- 16-bit grey is scaled (65,535 becomes 255), not clipped at 255;
- 32-bit integers that fit 16 bits count as 16-bit; wider ones, and floats
  outside [0, 255], are stretched from their own minimum to their own maximum;
  floats within [0, 1] count as fractions of white;
- CMYK and Lab go through Pillow's plain conversion; colour profiles are not
  applied (torchvision's training pipelines don't apply them either);
- the EXIF orientation is applied, an unreadable one is ignored.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

Orientation = Image.Transpose
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Orientation.FLIP_LEFT_RIGHT,
    3: Orientation.ROTATE_180,
    4: Orientation.FLIP_TOP_BOTTOM,
    5: Orientation.TRANSPOSE,
    6: Orientation.ROTATE_270,
    7: Orientation.TRANSVERSE,
    8: Orientation.ROTATE_90,
}
_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any Pillow mode to upright RGB."""
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _colours(image)
    return rgb if turn is None else rgb.transpose(turn)


def is_upright(image: Image.Image) -> bool:
    """Whether its EXIF block, if it has one, leaves it as it lies."""
    return "exif" not in image.info or _orientation(image) not in _UPRIGHT


def _orientation(image: Image.Image) -> int:
    # EXIF blocks in the wild are broken in every way; Pillow's reader then raises
    # almost anything (struct.error, SyntaxError, KeyError...). A picture that may
    # lie on its side is better than none.
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _colours(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_wide(image).convert("RGB")
    if image.mode == "LAB":
        return image.convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", rgba.size, _WHITE)
    white.paste(rgba, mask=rgba)
    return white


def _from_wide(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((values >> 8).astype(np.uint8))
    low, high = _finite_range(values)
    if image.mode == "I" and low >= 0 and high <= 65_535:
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F" and low >= 0.0 and high <= 255.0:
        low, high = (0.0, 1.0) if high <= 1.0 else (0.0, 255.0)
    return Image.fromarray(_stretched(values, low, high))


def _finite_range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    # Integer images may span more than float32 holds exactly; 8 bits come out anyway.
    scaled = values.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(255.0 / (high - low) if high > low else 0.0)
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(scaled, 0.0, 255.0, out=scaled).round(out=scaled).astype(np.uint8)
