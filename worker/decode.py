"""Uploaded bytes to an upright RGB image, or a code that says why not.

Owns the caps on what a stranger's file may cost, and the codes that a person
reads when it isn't decoded: `empty_file`, `image_bytes_too_many`,
`not_an_image`, `unsupported_format`, `image_too_large`, `truncated_image`,
`corrupt_image`, `out_of_memory`. (`decode_timeout` belongs to
`worker.decode_pool`, which holds the clock.) Promises: the header is judged
before any pixel is decoded; only the formats of `worker.formats.SUPPORTED` are
ever opened; the first frame of an animation or page of a document counts.

Memory at the peak, measured with Pillow 13 in bytes a pixel: JPEG 4, progressive
7, progressive CMYK to be turned upright 12; PNG 8; GIF 9; WebP 16. The largest
image allowed costs 830 MB at the worst, and large ones are decoded one at a time.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

# Named here so that Image.open never falls back to importing every plugin there is.
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from wire.errors import PeerFault
from worker.formats import SUPPORTED, SUPPORTED_TEXT, is_cut_off, sniff
from worker.pixels import is_upright, to_rgb

assert TiffImagePlugin.TiffImageFile.format in SUPPORTED
assert WebPImagePlugin.WebPImageFile.format in SUPPORTED

PIXELS_MAX = 52_000_000
PLAIN_PIXELS_MAX = 2_000_000
"""Larger JPEGs stay with Pillow: as float32, while they are resized, they take 12 bytes a pixel."""

Picture = Image.Image | NDArray[np.uint8]
"""Upright RGB: Pillow's, or uint8 [height, width, 3]."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Caps on one image. 52 million pixels let a telephone's 50-megapixel mode through."""

    bytes_max: int = 64 * 2**20
    pixels_max: int = PIXELS_MAX
    large_pixels: int = 16_000_000
    timeout_s: float = 10.0
    wedged_s: float = 30.0


class ImageFault(PeerFault):
    """The image can't be classified; trying again can't help, unless `retryable`."""

    def __init__(self, code: str, reason: str, *, retryable: bool = False) -> None:
        super().__init__(code, reason)
        self.retryable = retryable


def silence_pillow() -> None:
    """Keep Pillow's warnings about strangers' files off stderr: the codes say it."""
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Decoder:
    """Opens and loads images within limits. Calls may come from several threads.

    Making one sets Pillow's own process-wide pixel bound, so that the checks
    inside its plugins (a GIF frame larger than its canvas) use the same cap.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        # Pillow raises above twice this bound; up to there `_check_pixels` knows the shape.
        Image.MAX_IMAGE_PIXELS = limits.pixels_max

    def decode(self, data: bytes, least_px: int | None = None) -> Image.Image:
        """Open and load in one go. Raises `ImageFault`."""
        return self.load(self.open(data), data, least_px)

    def open(self, data: bytes) -> ImageFile.ImageFile:
        """Read the header only. Raises `ImageFault`."""
        self._check_bytes(data)
        try:
            image = Image.open(io.BytesIO(data), formats=SUPPORTED)
        except Exception as error:  # Pillow raises nearly anything on broken input
            raise self._fault(data, error) from error
        self._check_pixels(image.width * image.height, f"{image.width}×{image.height}")
        return image

    def is_large(self, image: ImageFile.ImageFile) -> bool:
        """True if it is worth decoding with no other large one beside it."""
        return image.width * image.height > self._limits.large_pixels

    def load(
        self, image: ImageFile.ImageFile, data: bytes, least_px: int | None = None
    ) -> Image.Image:
        """Decode the pixels of an opened image to upright RGB. Raises `ImageFault`.

        With `least_px` a JPEG may come out at a half, a quarter or an eighth of its
        size, as long as both sides keep so many pixels: the inverse transform of its
        blocks then makes only the pixels that are wanted.
        """
        try:
            if least_px is not None:
                image.draft(None, (least_px, least_px))
            image.load()
            self._check_pixels(image.width * image.height, f"{image.width}×{image.height}")
            return to_rgb(image)
        except ImageFault:
            raise
        except Exception as error:  # as above: decoders are of many makers
            raise self._fault(data, error) from error

    def load_fast(
        self, image: ImageFile.ImageFile, data: bytes, least_px: int | None = None
    ) -> Picture:
        """As `load`, but an ordinary JPEG comes as an array, an eighth sooner.

        The pixels are the same: both ways end in libjpeg-turbo.
        """
        try:
            if least_px is not None:
                image.draft(None, (least_px, least_px))
            if _is_plain(image):
                pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                    data, "RGB", min_height=image.height, min_width=image.width
                )
                return pixels
        except (ValueError, MemoryError):
            pass  # damaged, or something that Pillow overlooks: let it decide, and say so
        return self.load(image, data, least_px)

    def _check_bytes(self, data: bytes) -> None:
        if not data:
            raise ImageFault("empty_file", "the file has no bytes: upload it again")
        if len(data) > self._limits.bytes_max:
            raise ImageFault(
                "image_bytes_too_many",
                f"the file has {len(data):,} bytes; at most {self._limits.bytes_max:,} are taken: "
                "save it smaller",
            )

    def _check_pixels(self, pixels: int, shape: str) -> None:
        if pixels > self._limits.pixels_max:
            raise self._too_large(f"{shape} = {pixels:,} pixels")

    def _too_large(self, value: str) -> ImageFault:
        return ImageFault(
            "image_too_large",
            f"the image has {value}; at most {self._limits.pixels_max:,} are decoded: "
            "scale it down",
        )

    def _fault(self, data: bytes, error: Exception) -> ImageFault:
        # Pillow's plugins raise nearly any exception on hostile files, so every one is
        # the file's fault here, save for want of memory.
        if isinstance(error, Image.DecompressionBombError):
            found = re.search(r"\d+", str(error))
            return self._too_large(f"{int(found[0]):,} pixels" if found else "too many pixels")
        if isinstance(error, MemoryError):
            return ImageFault(
                "out_of_memory", "this worker had too little memory for it", retryable=True
            )
        return _explain(data, error)


def _is_plain(image: ImageFile.ImageFile) -> bool:
    return (
        image.format == "JPEG"
        and image.mode == "RGB"
        and image.width * image.height <= PLAIN_PIXELS_MAX
        and is_upright(image)
    )


def _explain(data: bytes, error: Exception) -> ImageFault:
    kind = sniff(data)
    if kind is None:
        return ImageFault("not_an_image", f"not an image that is known here ({SUPPORTED_TEXT})")
    if kind not in SUPPORTED:
        return ImageFault(
            "unsupported_format", f"{kind} is not decoded here: save it as {SUPPORTED_TEXT}"
        )
    if "truncated" in str(error).lower() or is_cut_off(data, kind):
        return ImageFault(
            "truncated_image", f"the {kind} file ends too early ({len(data):,} bytes came)"
        )
    detail = "its header makes no sense" if isinstance(error, UnidentifiedImageError) else error
    return ImageFault("corrupt_image", f"the {kind} file is damaged: {str(detail)[:200]}")
