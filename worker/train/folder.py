"""A folder-per-class data set: found, split, decoded once, kept as uint8 squares.

Promises that an empty class, a clash of class names and an unreadable image
are told before training starts, by path. Leaves augmentation to `augment`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from wire.errors import EnvironmentFault

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
UNREADABLE_SHOWN = 10
RAM_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Folder:
    """Class names in output order, and each image's path with its class number."""

    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Images as uint8 [n, 3, side, side] and labels as int64 [n]."""

    pixels: torch.Tensor
    labels: torch.Tensor


def scan(root: Path, classes: Sequence[str] | None = None) -> Folder:
    """List the images under `root/CLASS/`, in sorted order.

    `classes` fixes the names and their order (for a validation folder).

    Raises:
        EnvironmentFault: no folder, no classes, an empty class, a name clash,
            or a class that `classes` does not know.
    """
    if not root.is_dir():
        raise EnvironmentFault("no_folder", f"{root} is no folder; give one folder per class in it")
    folders = {entry.name: entry for entry in sorted(root.iterdir()) if _is_class(entry)}
    _check_clashes(root, list(folders))
    names = tuple(classes) if classes is not None else tuple(folders)
    unknown = sorted(set(folders) - set(names))
    if unknown:
        raise EnvironmentFault(
            "unknown_class", f"{root} has classes that the model lacks: {', '.join(unknown)}"
        )
    if len(names) < 2:
        raise EnvironmentFault(
            "no_classes", f"{root} has {len(names)} class folders; at least 2 are needed"
        )
    images = []
    for number, name in enumerate(names):
        found = _images(folders[name]) if name in folders else []
        if not found:
            raise EnvironmentFault(
                "empty_class",
                f"class {name!r} has no images in {root / name}; add some or remove the folder"
                f" (suffixes read: {', '.join(sorted(SUFFIXES))})",
            )
        images += [(path, number) for path in found]
    return Folder(classes=names, images=tuple(images))


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _check_clashes(root: Path, names: Sequence[str]) -> None:
    """Two names that differ only in case or outer spaces would be one class to a person."""
    seen: dict[str, str] = {}
    for name in names:
        key = name.strip().casefold()
        if key in seen:
            raise EnvironmentFault(
                "class_clash",
                f"class folders {seen[key]!r} and {name!r} in {root} differ only in case or spaces;"
                " merge or rename one",
            )
        seen[key] = name


def split(folder: Folder, val_share: float, rng: random.Random) -> tuple[Folder, Folder]:
    """Hold out `val_share` of each class, at least one image, drawn with `rng`.

    Raises:
        EnvironmentFault: a class has a single image, so nothing can be held out.
    """
    train: list[tuple[Path, int]] = []
    val: list[tuple[Path, int]] = []
    for number, name in enumerate(folder.classes):
        members = [image for image in folder.images if image[1] == number]
        if len(members) < 2:
            raise EnvironmentFault(
                "empty_class",
                f"class {name!r} has a single image, so none can be held out;"
                " add images or give --val DIR",
            )
        rng.shuffle(members)
        held = max(1, round(len(members) * val_share))
        held = min(held, len(members) - 1)
        val += members[:held]
        train += members[held:]
    return (
        Folder(classes=folder.classes, images=tuple(sorted(train))),
        Folder(classes=folder.classes, images=tuple(sorted(val))),
    )


def decode_all(
    folder: Folder, side_px: int, spill: Path, on_done: Callable[[int], None] = lambda n: None
) -> Decoded:
    """Decode every image to a `side_px` square: shorter side resized, centre cut out.

    The pixels lie in RAM where they fit in `RAM_SHARE` of what is free, else in
    the memory-mapped file `spill`. `on_done` hears how many images were added.

    Raises:
        EnvironmentFault: images that cannot be decoded, naming the first ones.
    """
    shape = (len(folder.images), 3, side_px, side_px)
    pixels = _allocate(shape, spill)
    unreadable: list[str] = []
    paths = [path for path, _ in folder.images]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row, result in enumerate(pool.map(partial(_decode, side_px=side_px), paths)):
            if isinstance(result, str):
                unreadable.append(result)
            else:
                pixels[row] = result
            on_done(1)
    if unreadable:
        raise _unreadable(unreadable)
    labels = torch.tensor([label for _, label in folder.images])
    return Decoded(pixels=torch.from_numpy(pixels), labels=labels)


def _decode(path: Path, side_px: int) -> np.ndarray | str:
    """The square as uint8 [3, side, side], or a line saying why there is none."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (side_px, side_px))
            square = ImageOps.fit(
                ImageOps.exif_transpose(image).convert("RGB"),
                (side_px, side_px),
                Image.Resampling.BILINEAR,
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        return f"{path}: {fault}"
    return np.asarray(square).transpose(2, 0, 1)


def _allocate(shape: tuple[int, ...], spill: Path) -> np.ndarray:
    needed_bytes = int(np.prod(shape))
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed_bytes <= RAM_SHARE * free_bytes:
        return np.empty(shape, np.uint8)
    spill.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(spill, mode="w+", dtype=np.uint8, shape=shape)


def stored_side(folder: Folder, largest_input_px: int, rng: random.Random) -> int:
    """Side at which to keep images: an eighth above the largest input, never above the sources'.

    Keeping 32 px originals at 32 px saves memory and leaves the enlarging to
    augmentation. The sources' size is the 90th percentile of a sample.
    """
    sample = rng.sample(folder.images, min(len(folder.images), 200))
    sides = sorted(_shorter_side(path) for path, _ in sample)
    typical = sides[int(0.9 * (len(sides) - 1))] or largest_input_px
    return min(typical, largest_input_px * 9 // 8)


def _shorter_side(path: Path) -> int:
    """0 where the header cannot be read: `decode_all` tells which and why."""
    try:
        with Image.open(path) as image:
            return min(image.size)
    except OSError:
        return 0


def _unreadable(lines: list[str]) -> EnvironmentFault:
    shown = "\n  ".join(lines[:UNREADABLE_SHOWN])
    more = len(lines) - UNREADABLE_SHOWN
    return EnvironmentFault(
        "unreadable_image",
        f"{len(lines)} images cannot be decoded; remove or replace them:\n  {shown}"
        + (f"\n  and {more} more" if more > 0 else ""),
    )
