"""What `master model` prints: the catalogue as a table, one model's facts in two columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.table import Table

from master.config import MODEL_DEFAULT
from master.models import catalogue as catalogues
from master.models.cards import card_path, read_card
from master.models.catalogue import Architecture, Pretrained
from master.models.files import inspect
from master.models.resolve import BUNDLED, Resolved, cache_dir, resolve
from wire.card import Card, Preprocessing
from wire.errors import EnvironmentFault

_CLASSES_SHOWN: Final = 10
# Wide enough for the table where stdout is no terminal: a pipe has no width to fit.
_PIPE_COLUMNS: Final = 160


def show_list(out: IO[str], environ: Mapping[str, str]) -> None:
    """One row for each architecture; `at hand` says which need no download."""
    cache = cache_dir(environ)
    table = Table("model", "parameters", "top-1", "download", "input", "at hand", box=None)
    for architecture in catalogues.load():
        preset = architecture.recommended
        table.add_row(
            architecture.name,
            f"{architecture.parameters / 1e6:.1f} M",
            f"{preset.top1:.1%}",
            f"{preset.size_mib:.0f} MiB",
            f"{preset.preprocessing.crop_px} px",
            ", ".join(_at_hand(architecture, cache)),
        )
    console = _console(out)
    console.print(table)
    console.print(
        "top-1: on ImageNet, as torchvision measured it. Your own weights: docs/models.md"
    )


def _at_hand(architecture: Architecture, cache: Path) -> Iterator[str]:
    if any((cache / preset.file_name).is_file() for preset in architecture.weights):
        yield "cache"
    if architecture.name == MODEL_DEFAULT and BUNDLED.exists():
        yield f"bundled ({len(read_card(card_path(BUNDLED)).classes)} classes)"


def show_model(
    out: IO[str], environ: Mapping[str, str], model: str | None, weights: Path | None
) -> None:
    """What torchvision publishes of the model, and what would be served without a download."""
    console = _console(out)
    if weights is None and model != BUNDLED.stem:
        architecture = catalogues.load().known(model or MODEL_DEFAULT)
        _show_published(console, architecture, cache_dir(environ))
    try:
        found = resolve(model, weights, offline=True)
    except EnvironmentFault as fault:
        if fault.code != "no_weights":
            raise
        console.print(f"\n{fault.reason}", markup=False)
        return
    _show_resolved(console, found)


def _show_published(console: Console, architecture: Architecture, cache: Path) -> None:
    console.print(f"{architecture.name}: weights that torchvision publishes", markup=False)
    for preset in architecture.by_preference:
        console.print(_facts(_published_facts(preset, cache)))


def _published_facts(preset: Pretrained, cache: Path) -> dict[str, str]:
    path = cache / preset.file_name
    notices = catalogues.load().table.notices
    return {
        "weights": preset.name,
        "accuracy": f"top-1 {preset.top1:.2%}, top-5 {preset.top5:.2%} on ImageNet",
        "preprocessing": _preprocessing(preset.preprocessing),
        "licence": notices.licence_swag if preset.swag else notices.licence,
        "url": f"{preset.url} ({preset.size_mib} MiB)",
        "path": f"{path} ({'there' if path.is_file() else 'not there'})",
        "": "",
    }


def _show_resolved(console: Console, found: Resolved) -> None:
    console.print("Served by `master up` without a download:", markup=False)
    facts = {"source": found.source, "file": str(found.path), **_card_facts(found.card)}
    tensors = inspect(found.path).tensors
    if tensors is not None:
        numbers = sum(tensor.elements for tensor in tensors.values())
        facts["tensors"] = f"{len(tensors)} with {numbers:,} numbers"
    if found.warning is not None:
        facts["warning"] = found.warning
    console.print(_facts(facts))


def _card_facts(card: Card) -> dict[str, str]:
    shown = ", ".join(card.classes[:_CLASSES_SHOWN])
    more = ", …" if len(card.classes) > _CLASSES_SHOWN else ""
    return {
        "id": card.id,
        "architecture": card.architecture,
        "classes": f"{len(card.classes)}: {shown}{more}",
        "preprocessing": _preprocessing(card.preprocessing),
        "format": f"{card.format}, {card.dtype}, {card.size_bytes:,} bytes",
        "sha256": card.sha256,
        "accuracy": ", ".join(f"{name} {top1:.2%}" for name, top1 in card.accuracy.items()),
        "licence": card.licence,
        "origin": card.origin,
        "made by": card.made_by,
    }


def _preprocessing(recipe: Preprocessing) -> str:
    return (
        f"resize {recipe.resize_px} {recipe.interpolation}, crop {recipe.crop_px}, "
        f"mean {recipe.mean}, std {recipe.std}"
    )


def _facts(facts: Mapping[str, str]) -> Table:
    """Two columns: what, and its value; what is unknown is left out."""
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value or not name:
            table.add_row(name, value.replace("[", "\\["))
    return table


def _console(out: IO[str]) -> Console:
    return Console(file=out, width=None if out.isatty() else _PIPE_COLUMNS, highlight=False)
