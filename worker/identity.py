"""Whether a weights file is the one that its card describes. Needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wire.card import Card
from wire.errors import EnvironmentFault


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_identity(card: Card, weights: Path) -> None:
    """Compare size and SHA-256. Raises `EnvironmentFault` naming both where they differ."""
    try:
        size_bytes, sha256 = weights.stat().st_size, sha256_of(weights)
    except OSError as fault:
        raise EnvironmentFault(
            "weights_unreadable", f"weights of {card.id!r} cannot be read: {fault}"
        ) from fault
    if size_bytes != card.size_bytes or sha256 != card.sha256:
        raise EnvironmentFault(
            "weights_mismatch",
            f"{weights} has {size_bytes} bytes and SHA-256 {sha256}, but card {card.id!r} says"
            f" {card.size_bytes} bytes and {card.sha256}; fetch the file again or correct the card",
        )
