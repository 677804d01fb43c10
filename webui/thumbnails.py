"""Small pictures of uploads, made with care: the images come from strangers.

Only the formats that the workers take are opened, nothing over
`thumbnail_source_pixels` is decoded, and JPEGs are decoded at a fraction of
their size. Few at a time, and the results are kept in a cache bounded in bytes.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageOps

from webui.config import Limits
from webui.problems import Problem

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A WebP picture and its ETag."""

    data: bytes
    etag: str


class Thumbnails:
    """Makes and keeps thumbnails; callable from any thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = threading.BoundedSemaphore(limits.thumbnail_threads)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Thumbnail] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Thumbnail | None:
        """Return a kept thumbnail."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            return kept

    def make(self, key: str, data: bytes) -> Thumbnail:
        """Make and keep the thumbnail of an upload.

        Raises:
            Problem: `no_thumbnail`, saying why.
        """
        with self._places:
            picture = render(data, self._limits.thumbnail_px, self._limits.thumbnail_source_pixels)
        made = Thumbnail(picture, hashlib.sha256(data).hexdigest()[:32])
        with self._lock:
            old = self._kept.pop(key, None)
            self._bytes += len(made.data) - (len(old.data) if old else 0)
            self._kept[key] = made
            while self._bytes > self._limits.thumbnail_cache_bytes:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= len(dropped.data)
        return made


def render(data: bytes, side_px: int, source_pixels_max: int) -> bytes:
    """Return a WebP of at most `side_px` a side.

    Raises:
        Problem: `no_thumbnail`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                return _shrink(opened, side_px, source_pixels_max)
    except Problem:
        raise
    except Exception as fault:  # Pillow's decoders raise nearly anything on broken input
        raise Problem("no_thumbnail", f"the image can't be read: {type(fault).__name__}") from None


def _shrink(opened: Image.Image, side_px: int, source_pixels_max: int) -> bytes:
    if opened.format == "JPEG":
        opened.draft("RGB", (side_px, side_px))
    pixels = opened.width * opened.height
    if pixels > source_pixels_max:
        raise Problem(
            "no_thumbnail", f"{pixels} pixels are over the {source_pixels_max} of a thumbnail"
        )
    opened.thumbnail((side_px, side_px))
    upright = ImageOps.exif_transpose(opened)
    has_alpha = upright.mode in {"RGBA", "LA", "PA"} or "transparency" in upright.info
    out = io.BytesIO()
    _to_8_bit(upright).convert("RGBA" if has_alpha else "RGB").save(out, "WEBP", quality=78)
    return out.getvalue()


def _to_8_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I") and image.mode != "F":
        return image
    # 16-bit and float gray would be clipped to white by a plain conversion.
    gray = image.convert("F")
    low, high = cast("tuple[float, float]", gray.getextrema())
    scale = 255.0 / max(high - low, 1e-9)
    return gray.point(lambda value: value * scale - low * scale).convert("L")
