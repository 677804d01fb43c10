"""A data set's pixels: decoded once, kept as uint8 squares, in RAM or in a mapped file.

Promises that unreadable images are told by path, all at once, before training
starts. Decoding is the worker's own (`worker.decode`), so that training sees
what serving will see.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wire.errors import EnvironmentFault
from worker.decode import DecodeLimits, Decoder, ImageFault
from worker.train.folder import Folder

UNREADABLE_SHOWN = 10
RAM_SHARE = 0.4
SIDE_SAMPLE_IMAGES = 200


@dataclass(frozen=True, slots=True)
class Decoded:
    """Images as uint8 [n, 3, side, side] and labels as int64 [n]."""

    pixels: torch.Tensor
    labels: torch.Tensor


def decode_all(
    folder: Folder, side_px: int, spill: Path, on_image: Callable[[], None] = lambda: None
) -> Decoded:
    """Decode every image to a `side_px` square: shorter side resized, centre cut out.

    The pixels lie in RAM where they fit in `RAM_SHARE` of what is available,
    else in the memory-mapped file `spill`. `on_image` is called for each one.

    Raises:
        EnvironmentFault: images that cannot be decoded, naming the first ones;
            or no room for `spill`.
    """
    pixels = _allocate((len(folder.images), 3, side_px, side_px), spill)
    decoder = Decoder(DecodeLimits())

    def decode(row: int) -> str | None:
        path = folder.images[row][0]
        try:
            image = decoder.decode(path.read_bytes())
        except (OSError, ImageFault) as fault:
            return f"{path}: {fault.reason if isinstance(fault, ImageFault) else fault}"
        square = ImageOps.fit(image, (side_px, side_px), Image.Resampling.BILINEAR)
        pixels[row] = np.asarray(square).transpose(2, 0, 1)
        return None

    unreadable = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for complaint in pool.map(decode, range(len(folder.images))):
            if complaint is not None:
                unreadable.append(complaint)
            on_image()
    if unreadable:
        raise _unreadable(unreadable)
    labels = torch.tensor([label for _, label in folder.images])
    return Decoded(pixels=torch.from_numpy(pixels), labels=labels)


def stored_side(folder: Folder, largest_input_px: int, rng: random.Random) -> int:
    """Side at which to keep images: an eighth above the largest input, never above the sources'.

    Keeping 32 px originals at 32 px saves memory and leaves the enlarging to
    augmentation. The sources' size is the 90th percentile of a sample.
    """
    sample = rng.sample(folder.images, min(len(folder.images), SIDE_SAMPLE_IMAGES))
    sides = sorted(_shorter_side(path) for path, _ in sample)
    typical = sides[int(0.9 * (len(sides) - 1))] or largest_input_px
    return min(typical, largest_input_px * 9 // 8)


def _shorter_side(path: Path) -> int:
    """0 where the header cannot be read: `decode_all` tells which and why."""
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, Image.DecompressionBombError):
        return 0


def _allocate(shape: tuple[int, ...], spill: Path) -> NDArray[np.uint8]:
    needed_bytes = int(np.prod(shape))
    if needed_bytes <= RAM_SHARE * _available_bytes():
        return np.empty(shape, np.uint8)
    try:
        spill.parent.mkdir(parents=True, exist_ok=True)
        with spill.open("wb") as file:
            # Reserved at once: a full disk under a mapping would be a bus error.
            os.posix_fallocate(file.fileno(), 0, needed_bytes)
    except OSError as fault:
        raise EnvironmentFault(
            "disk_full",
            f"the decoded images need {needed_bytes:,} bytes, more than RAM allows, and {spill}"
            f" cannot take them ({fault}); give --run on a larger disk or smaller --sizes",
        ) from fault
    return np.memmap(spill, np.uint8, "r+", shape=shape)


def _available_bytes() -> int:
    """RAM that can be had without swapping: Linux's own estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    return 0


def _unreadable(lines: list[str]) -> EnvironmentFault:
    shown = "\n  ".join(lines[:UNREADABLE_SHOWN])
    more = len(lines) - UNREADABLE_SHOWN
    return EnvironmentFault(
        "unreadable_image",
        f"{len(lines)} images cannot be decoded; repair or remove them:\n  {shown}"
        + (f"\n  and {more} more" if more > 0 else ""),
    )
