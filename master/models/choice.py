"""The model that `master model set` chose, kept over restarts of the core.

A choice holds as long as the master is started with the flags that it was made
under: the core that comes back after a crash serves what was chosen, and
`master up` with other flags means what it says.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

FILE = "model.json"


@dataclass(frozen=True, slots=True)
class Choice:
    """What `resolve` takes: an architecture, a weights file, or both."""

    model: str | None
    weights: Path | None


class _Kept(msgspec.Struct, frozen=True):
    given: tuple[str, str]
    model: str | None
    weights: str | None


def remember(data_dir: Path, given: tuple[str, str], choice: Choice) -> None:
    """Keep a choice made while the master ran with the flags `given`."""
    weights = str(choice.weights.absolute()) if choice.weights else None
    kept = _Kept(given=given, model=choice.model, weights=weights)
    draft = data_dir / f"{FILE}.new"
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(kept))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(data_dir / FILE)


def in_force(data_dir: Path, given: tuple[str, str], flags: Choice) -> Choice:
    """The choice to start with: the kept one if the flags are those of then."""
    try:
        kept = msgspec.json.decode((data_dir / FILE).read_bytes(), type=_Kept)
    except (FileNotFoundError, msgspec.DecodeError):
        return flags
    if kept.given != given:
        return flags
    return Choice(kept.model, Path(kept.weights) if kept.weights else None)
