"""Model cards: reading the one beside a weights file, checking it, showing what one looks like."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import msgspec

from master.models.catalogue import Architecture, Catalogue, Pretrained
from master.models.files import Inspection
from wire.card import Card
from wire.errors import EnvironmentFault

IMAGENET: Final = "imagenet"
INTERPOLATIONS: Final = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
DTYPES: Final = ("float32", "float16", "bfloat16")
CARD_BYTES_MAX: Final = 4 * 2**20
# `wire.messages.Name`: a worker says the card's id when it is ready.
ID_CHARS_MAX: Final = 128
_EXAMPLE_CLASSES: Final = 3


def card_path(weights: Path) -> Path:
    """Where the card of a weights file lies: the same name, ending in `.json`."""
    return weights.with_suffix(".json")


def read_card(path: Path) -> Card:
    """The card in a JSON file, its values checked.

    Raises:
        EnvironmentFault: the file can't be read or is no card; the message names the field.
    """
    try:
        if (size_bytes := path.stat().st_size) > CARD_BYTES_MAX:
            raise _bad(path, f"it holds {size_bytes} bytes; the limit is {CARD_BYTES_MAX}")
        card = msgspec.json.decode(path.read_bytes(), type=Card)
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _bad(path, str(error)) from error
    if problems := list(_problems(card)):
        raise _bad(path, "; ".join(problems))
    return card


def _problems(card: Card) -> list[str]:
    """What the types of `Card` don't say."""
    recipe = card.preprocessing
    checks = {
        f"id must have 1 to {ID_CHARS_MAX} characters": 1 <= len(card.id) <= ID_CHARS_MAX,
        f"dtype {card.dtype!r} is none of {', '.join(DTYPES)}": card.dtype in DTYPES,
        f"interpolation {recipe.interpolation!r} is none of {', '.join(INTERPOLATIONS)}": (
            recipe.interpolation in INTERPOLATIONS
        ),
        f"std {recipe.std} must be above 0": all(value > 0 for value in recipe.std),
        "mean and std must be finite": all(map(math.isfinite, recipe.mean + recipe.std)),
        "accuracy lies in [0, 1]": all(0 <= value <= 1 for value in card.accuracy.values()),
    }
    return [problem for problem, fine in checks.items() if not fine]


def _bad(path: Path, why: str) -> EnvironmentFault:
    return EnvironmentFault(
        "bad_card", f"{path} is not a usable model card: {why} (docs/models.md has every field)"
    )


def published_card(
    catalogue: Catalogue, architecture: Architecture, preset: Pretrained, seen: Inspection
) -> Card:
    """The card of a file that is torchvision's own, with torchvision's facts about it."""
    table = catalogue.table
    return msgspec.structs.replace(
        assumed_card(catalogue, architecture, preset, seen),
        id=f"{architecture.name}-{preset.name.lower()}",
        licence=(
            f"{table.notices.licence_swag if preset.swag else table.notices.licence} "
            f"({table.notices.about})"
        ),
        origin=preset.url,
        made_by=f"torchvision {table.torchvision}, {preset.name}; recipe: {preset.recipe}",
        accuracy={IMAGENET: preset.top1},
    )


def assumed_card(
    catalogue: Catalogue, architecture: Architecture, preset: Pretrained, seen: Inspection
) -> Card:
    """The card of a file without one: ImageNet's classes, and preprocessing as of `preset`."""
    return Card(
        id=seen.path.stem[:ID_CHARS_MAX],
        architecture=architecture.name,
        classes=list(catalogue.classes),
        preprocessing=preset.preprocessing,
        sha256=seen.sha256,
        size_bytes=seen.size_bytes,
        format=seen.format,
        dtype=seen.dtype or "float32",
    )


def example_card(architecture: str, classes: int | None, seen: Inspection) -> str:
    """A card for this file as JSON to fill in: what can be seen of it stands there already."""
    labels = [f"label {row}" for row in range(min(classes or _EXAMPLE_CLASSES, _EXAMPLE_CLASSES))]
    if classes is None or classes > _EXAMPLE_CLASSES:
        labels.append(f"… {classes} labels in output order" if classes else "…")
    example: dict[str, Any] = {
        "id": seen.path.stem[:ID_CHARS_MAX],
        "architecture": architecture,
        "classes": labels,
        "preprocessing": {
            "resize_px": 256,
            "crop_px": 224,
            "interpolation": "bilinear",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "sha256": seen.sha256,
        "size_bytes": seen.size_bytes,
        "format": seen.format,
        "dtype": seen.dtype or "float32",
    }
    return msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
