"""Where the weights come from: --weights, torch's cache, torchvision's download, the bundle.

The first source that has them wins, and every step leaves one log line. Without
any the message names the three ways to give some.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from master.config import MODEL_DEFAULT
from master.logs import fields
from master.models import catalogue as catalogues
from master.models.cards import card_path, published_card, read_card
from master.models.catalogue import Architecture, Catalogue, Pretrained
from master.models.checkpoint import check_checkpoint
from master.models.files import inspect
from wire.card import Card
from wire.errors import EnvironmentFault

_log = logging.getLogger("lookout.models")

BUNDLED: Final = Path(__file__).parent.parent / "bundled" / "googlenet-cifar10.safetensors"
Fetch = Callable[[Pretrained, Path], None]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The model to serve. `warning` is for the log, the API and the page, None if all is well."""

    card: Card
    path: Path
    source: str
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where weights are looked for: torch's cache, and the checkpoint that ships with Lookout."""

    cache: Path
    bundled: Path = BUNDLED


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Torch's own cache of weights files, found as `torch.hub` finds it."""
    if home := environ.get("TORCH_HOME"):
        return Path(home).expanduser() / "hub" / "checkpoints"
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "torch" / "hub" / "checkpoints"


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether `LOOKOUT_OFFLINE` forbids the download."""
    return environ.get("LOOKOUT_OFFLINE", "") not in ("", "0")


def resolve(
    model: str | None,
    weights: Path | None = None,
    *,
    offline: bool = False,
    places: Places | None = None,
    catalogue: Catalogue | None = None,
    fetch: Fetch | None = None,
) -> Resolved:
    """Find the weights of `model`; None means what `weights` says of itself, else the default.

    The default beside `weights` that have a card is no choice either: the card
    decides. `model` may also name the bundled checkpoint, which is then served
    without a warning.

    Raises:
        EnvironmentFault: `weights` doesn't do, the model is unknown, or no source has weights
            (`no_weights`).
    """
    catalogue = catalogue or catalogues.load()
    places = places or Places(cache_dir(os.environ))
    if weights is not None:
        return _found(_given(model, weights, catalogue))
    if model == places.bundled.stem:
        return _found(Resolved(_bundled_card(places, catalogue), places.bundled, "bundled"))
    architecture = catalogue.known(model or MODEL_DEFAULT)
    search = _Search(architecture, places, catalogue)
    found = search.in_cache()
    if found is None and not (offline or is_offline(os.environ)):
        found = search.by_download(fetch or _fetch)
    elif found is None:
        search.refuse("download", "offline, by --offline or LOOKOUT_OFFLINE")
    found = found or search.in_bundle()
    if found is None:
        raise search.no_weights()
    return _found(found)


def _given(model: str | None, weights: Path, catalogue: Catalogue) -> Resolved:
    # The flag's default is no choice against a card, which says its own architecture.
    chosen = None if model == MODEL_DEFAULT and card_path(weights).exists() else model
    return Resolved(check_checkpoint(weights, chosen, catalogue), weights, "--weights")


def _found(found: Resolved) -> Resolved:
    card = found.card
    _log.info(
        **fields(
            "weights found",
            source=found.source,
            path=found.path,
            model=card.id,
            architecture=card.architecture,
            classes=len(card.classes),
            sha256=card.sha256,
        )
    )
    if found.warning is not None:
        _log.warning(found.warning)
    return found


def _bundled_card(places: Places, catalogue: Catalogue) -> Card:
    read_card(card_path(places.bundled))  # it never stands without its card
    return check_checkpoint(places.bundled, None, catalogue)


def _fetch(preset: Pretrained, target: Path) -> None:
    # Only here: a start that finds its weights needs neither httpx nor rich.
    from master.models.download import download

    download(preset, target)


@dataclass(slots=True)
class _Search:
    """One walk through the sources; `refusals` collects why each had nothing."""

    architecture: Architecture
    places: Places
    catalogue: Catalogue
    refusals: list[str] = field(default_factory=list)

    def refuse(self, step: str, reason: str) -> None:
        self.refusals.append(f"{step}: {reason}")
        _log.info(**fields("no weights", source=step, model=self.architecture.name, reason=reason))

    def in_cache(self) -> Resolved | None:
        """A cached file of any of torchvision's weights, the recommended ones first."""
        for preset in self.architecture.by_preference:
            path = self.places.cache / preset.file_name
            if path.is_file() and (found := self._checked(preset, path, "cache")) is not None:
                return found
        self.refuse("cache", f"no {self.architecture.recommended.file_name} in {self.places.cache}")
        return None

    def by_download(self, fetch: Fetch) -> Resolved | None:
        preset = self.architecture.recommended
        target = self.places.cache / preset.file_name
        _log.info(**fields("downloading", url=preset.url, size_mib=preset.size_mib, to=target))
        try:
            fetch(preset, target)
        except EnvironmentFault as fault:
            self.refuse("download", fault.reason)
            return None
        return self._checked(preset, target, "download")

    def in_bundle(self) -> Resolved | None:
        if self.architecture.name != MODEL_DEFAULT:
            self.refuse("bundled", f"only {MODEL_DEFAULT} is bundled")
            return None
        if not self.places.bundled.exists():
            self.refuse("bundled", "this installation has no bundled checkpoint")
            return None
        card = _bundled_card(self.places, self.catalogue)
        return Resolved(card, self.places.bundled, "bundled", self._bundle_warning(card))

    def _checked(self, preset: Pretrained, path: Path, step: str) -> Resolved | None:
        """The file with torchvision's card, if it can be read and is what its name promises."""
        try:
            seen = inspect(path)
        except EnvironmentFault as fault:
            self.refuse(step, fault.reason)
            return None
        if not seen.sha256.startswith(preset.hash_prefix):
            reason = f"{path} has SHA-256 {seen.sha256[:16]}…, not {preset.hash_prefix}…"
            self.refuse(step, f"{reason} as its name promises")
            return None
        return Resolved(published_card(self.catalogue, self.architecture, preset, seen), path, step)

    def _bundle_warning(self, card: Card) -> str:
        preset = self.architecture.recommended
        return (
            f"Serving the bundled checkpoint {card.id}, which knows only {len(card.classes)} "
            f"classes: no ImageNet weights of {self.architecture.name} were found. It calls every "
            f"image one of {', '.join(card.classes)}. To recognise ImageNet's "
            f"{len(self.catalogue.classes)} classes, fetch {preset.url} on a machine with internet "
            f"and put it at {self.places.cache / preset.file_name}, or start with "
            "`master up --weights FILE`"
        )

    def no_weights(self) -> EnvironmentFault:
        name, preset = self.architecture.name, self.architecture.recommended
        return EnvironmentFault(
            "no_weights",
            f"there are no weights for {name} ({'; '.join(self.refusals)}). Three ways to give "
            f"some:\n"
            f"  1. a file that you have: master up --model {name} --weights FILE\n"
            f"  2. torchvision's: fetch {preset.url} on a machine with internet and put it at "
            f"{self.places.cache / preset.file_name}\n"
            f"  3. your own classes: worker train DIR --arch {name}, then "
            "master up --weights on what it wrote",
        )
