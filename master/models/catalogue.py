"""Torchvision's classifiers as the master knows them: names, weights, presets, classes.

Reads `torchvision.json` and `imagenet1k.json`, which `tests/tools/torchvision_table.py`
generates; the master itself never imports torchvision.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from master.models.layout import Tensor, layout_of
from wire.card import Preprocessing
from wire.errors import EnvironmentFault

TABLE_PATH: Final = Path(__file__).with_name("torchvision.json")
CLASSES_PATH: Final = Path(__file__).with_name("imagenet1k.json")


class Notices(msgspec.Struct, frozen=True, kw_only=True):
    """What torchvision says about licences; `about` is where it says so."""

    licence: str
    licence_swag: str
    about: str


class Pretrained(msgspec.Struct, frozen=True, kw_only=True):
    """One weights file that torchvision publishes.

    `hash_prefix` is the beginning of its SHA-256, taken from the file's name as
    `torch.hub` does; `size_mib` is rounded to three decimals; `top1` and `top5`
    are torchvision's own figures on ImageNet's validation set, in [0, 1].
    """

    name: str
    url: str
    hash_prefix: str
    size_mib: float
    preprocessing: Preprocessing
    top1: float
    top5: float
    recipe: str
    swag: bool = False

    @property
    def file_name(self) -> str:
        """The name under which torch keeps the file in its cache."""
        return urlsplit(self.url).path.rpartition("/")[2]


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """One torchvision builder.

    `classifier` names the layer whose first dimension is the class count and
    `classifier_inputs` its second; `layout` is the digest of all tensor names
    and shapes but that dimension (see `master.models.layout`); `default` is
    the name of the weights that torchvision recommends.
    """

    name: str
    classifier: str
    classifier_inputs: int
    parameters: int
    layout: str
    default: str
    weights: list[Pretrained]

    @property
    def recommended(self) -> Pretrained:
        """The weights that torchvision's `DEFAULT` names."""
        return next(one for one in self.weights if one.name == self.default)

    @property
    def by_preference(self) -> list[Pretrained]:
        """All weights, the recommended first."""
        return sorted(self.weights, key=lambda one: one.name != self.default)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `torchvision.json`."""

    torchvision: str
    notices: Notices
    architectures: list[Architecture]


@dataclass(frozen=True)
class Catalogue:
    """The table, searchable."""

    table: Table
    classes: tuple[str, ...]

    @functools.cached_property
    def _by_name(self) -> dict[str, Architecture]:
        return {one.name: one for one in self.table.architectures}

    def __iter__(self) -> Iterator[Architecture]:
        return iter(self.table.architectures)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def known(self, name: str) -> Architecture:
        """The architecture of that name.

        Raises:
            EnvironmentFault: there is none; the message names the closest ones.
        """
        if (found := self._by_name.get(name)) is not None:
            return found
        close = difflib.get_close_matches(name.lower(), self._by_name, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise EnvironmentFault(
            "unknown_model",
            f"{name!r} is not one of torchvision's {len(self._by_name)} classifiers; "
            f"{hint}`master model list` shows all",
        )

    def published_as(self, file_name: str) -> tuple[Architecture, Pretrained] | None:
        """Whose weights torchvision publishes under that file name."""
        return self._first(lambda one: one.file_name == file_name)

    def published_with(self, sha256: str) -> tuple[Architecture, Pretrained] | None:
        """Whose published weights have that SHA-256."""
        return self._first(lambda one: sha256.startswith(one.hash_prefix))

    def _first(
        self, wanted: Callable[[Pretrained], bool]
    ) -> tuple[Architecture, Pretrained] | None:
        pairs = ((each, one) for each in self for one in each.weights)
        return next((pair for pair in pairs if wanted(pair[1])), None)

    def fitting(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Names of the architectures, at most one, whose tensors these are."""
        return [one.name for one in self if layout_of(tensors, one.classifier) == one.layout]


@functools.cache
def load() -> Catalogue:
    """The catalogue that ships with this version."""
    table = msgspec.json.decode(TABLE_PATH.read_bytes(), type=Table)
    classes = msgspec.json.decode(CLASSES_PATH.read_bytes(), type=tuple[str, ...])
    return Catalogue(table, classes)
