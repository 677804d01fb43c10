"""A folder-per-class data set: found, checked and split, by path alone.

Promises that an empty class and a clash of class names are told before any
image is decoded. Leaves decoding to `decoded`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wire.errors import EnvironmentFault

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class Folder:
    """Class names in output order, and each image's path with its class number."""

    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]

    def fingerprint(self, root: Path) -> str:
        """SHA-256 of the relative paths and labels: the same list of images, the same print."""
        lines = [f"{label} {path.relative_to(root)}" for path, label in self.images]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def scan(root: Path, classes: Sequence[str] | None = None) -> Folder:
    """List the images under `root/CLASS/`, in sorted order.

    `classes` fixes the names and their order, for held-out images; some of them
    may then have no folder.

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
    if len(names) < 2 or not folders:
        raise EnvironmentFault(
            "no_classes", f"{root} has {len(folders)} class folders; at least 2 are needed"
        )
    images = []
    for number, name in enumerate(names):
        if name not in folders:
            continue
        found = _images(folders[name])
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
        held = min(max(1, round(len(members) * val_share)), len(members) - 1)
        val += members[:held]
        train += members[held:]
    return (
        Folder(classes=folder.classes, images=tuple(sorted(train))),
        Folder(classes=folder.classes, images=tuple(sorted(val))),
    )
