"""A weights file and its card, held against each other before any worker sees them."""

from __future__ import annotations

import logging
from pathlib import Path

from master.logs import fields
from master.models.cards import (
    DTYPES,
    assumed_card,
    card_path,
    example_card,
    published_card,
    read_card,
)
from master.models.catalogue import Architecture, Catalogue
from master.models.files import Inspection, inspect
from wire.card import Card
from wire.errors import EnvironmentFault

_log = logging.getLogger("lookout.models")


def check_checkpoint(path: Path, model: str | None, catalogue: Catalogue) -> Card:
    """The card of the weights at `path`, true of that file.

    With a card beside it that card is checked; without one the file must be
    torchvision's own, or `model` must say which architecture it is of, and its
    classes are then ImageNet's. `model` None accepts whatever the card says.

    Raises:
        EnvironmentFault: file, card and `model` don't fit; the message says what doesn't.
    """
    seen = inspect(path)
    if (beside := card_path(path)).exists():
        return _with_card(seen, beside, model, catalogue)
    return _without_card(seen, model, catalogue)


def _with_card(seen: Inspection, beside: Path, model: str | None, catalogue: Catalogue) -> Card:
    card = read_card(beside)
    _check_identity(card, seen, beside)
    if model is not None and card.architecture != model:
        raise EnvironmentFault(
            "wrong_model",
            f"--model asks for {model}, but {beside} says that {seen.path.name} is "
            f"{card.architecture}: give --model {card.architecture}, or another --weights",
        )
    architecture = catalogue.known(card.architecture)
    _check_layout(seen, architecture, catalogue)
    classes = seen.classes(architecture.classifier)
    if classes not in (None, len(card.classes)):
        raise EnvironmentFault(
            "wrong_class_count",
            f"{beside} lists {len(card.classes)} classes, but {architecture.classifier}.weight "
            f"in {seen.path} has {classes} outputs: list one label for each, in output order",
        )
    return card


def _check_identity(card: Card, seen: Inspection, beside: Path) -> None:
    if card.format != seen.format:
        raise _mismatch(beside, f"format {card.format!r}", f"the file is {seen.format!r}")
    if (card.size_bytes, card.sha256) != (seen.size_bytes, seen.sha256):
        raise EnvironmentFault(
            "wrong_hash",
            f"{seen.path} ({seen.size_bytes} bytes, SHA-256 {seen.sha256}) is not the file that "
            f"{beside} describes ({card.size_bytes} bytes, SHA-256 {card.sha256}): fetch both "
            "again; if you changed the weights yourself, put their size and hash into the card",
        )
    if seen.dtype not in (None, card.dtype):
        raise _mismatch(beside, f"dtype {card.dtype!r}", f"the tensors are {seen.dtype!r}")


def _mismatch(beside: Path, said: str, found: str) -> EnvironmentFault:
    return EnvironmentFault("card_mismatch", f"{beside} says {said}, but {found}: correct the card")


def _without_card(seen: Inspection, model: str | None, catalogue: Catalogue) -> Card:
    if (published := catalogue.published_with(seen.sha256)) is not None:
        architecture, preset = published
        if model not in (None, architecture.name):
            raise _looks_like(seen, str(model), architecture.name)
        return published_card(catalogue, architecture, preset, seen)
    _check_promised_hash(seen, catalogue)
    if model is None:
        raise _card_needed(seen, _guess(seen, catalogue), catalogue)
    architecture = catalogue.known(model)
    _check_layout(seen, architecture, catalogue)
    if seen.classes(architecture.classifier) not in (None, len(catalogue.classes)):
        raise _card_needed(seen, model, catalogue)
    preset = architecture.recommended
    _log.warning(
        **fields("preprocessing assumed", weights=seen.path, preset=preset.name, model=model)
    )
    return assumed_card(catalogue, architecture, preset, seen)


def _check_promised_hash(seen: Inspection, catalogue: Catalogue) -> None:
    if (promised := catalogue.published_as(seen.path.name)) is None:
        return
    raise EnvironmentFault(
        "wrong_hash",
        f"{seen.path} has SHA-256 {seen.sha256[:16]}…, but torchvision's file of that name "
        f"begins with {promised[1].hash_prefix}: it is damaged or another file. Fetch it again "
        f"from {promised[1].url}, or give your own weights another name",
    )


def _guess(seen: Inspection, catalogue: Catalogue) -> str | None:
    return next(iter(catalogue.fitting(seen.tensors or {})), None)


def _card_needed(seen: Inspection, model: str | None, catalogue: Catalogue) -> EnvironmentFault:
    classes = seen.classes(catalogue.known(model).classifier) if model else None
    if model is not None and classes == len(catalogue.classes):
        reason = f"it looks like {model} with ImageNet's {classes} classes: give --model {model}"
        return EnvironmentFault("card_needed", f"{seen.path} has no card, and {reason}")
    if model is None:
        why = "nothing says which architecture it is of"
    else:
        why = f"it is {model} with {classes} classes, whose labels only a card can say"
    return EnvironmentFault(
        "card_needed",
        f"{seen.path} has no card, and {why}. Write {card_path(seen.path)} with, for example:\n"
        f"{example_card(model or 'NAME', classes, seen)}",
    )


def _check_layout(seen: Inspection, architecture: Architecture, catalogue: Catalogue) -> None:
    """Types, names and shapes must be the architecture's, where the file shows them."""
    if seen.tensors is None:
        _log.info(**fields("tensors not inspected", weights=seen.path, reason="unfamiliar pickle"))
        return
    if seen.dtype not in (None, *DTYPES):
        raise EnvironmentFault(
            "wrong_dtype",
            f"the tensors in {seen.path} are {seen.dtype}; write them all as one of "
            f"{', '.join(DTYPES)}",
        )
    fitting = catalogue.fitting(seen.tensors)
    if architecture.name in fitting:
        return
    if fitting:
        raise _looks_like(seen, architecture.name, fitting[0])
    raise EnvironmentFault("wrong_architecture", _layout_reason(seen, architecture))


def _looks_like(seen: Inspection, wanted: str, found: str) -> EnvironmentFault:
    return EnvironmentFault(
        "wrong_architecture",
        f"{seen.path} does not fit {wanted}: its tensors are those of {found}. Give --model "
        f'{found} (or correct "architecture" in its card), or other weights',
    )


def _layout_reason(seen: Inspection, architecture: Architecture) -> str:
    name, inputs = f"{architecture.classifier}.weight", architecture.classifier_inputs
    tensors = seen.tensors or {}
    if (classifier := tensors.get(name)) is None:
        first = ", ".join(list(tensors)[:3]) or "none"
        what = f"it has no tensor {name} (it begins with {first})"
    elif classifier.shape[1:2] != (inputs,):
        what = f"{name} is {list(classifier.shape)}, not [classes, {inputs}, …]"
    else:
        held = sum(tensor.elements for tensor in tensors.values())
        what = (
            f"{name} fits, but other tensors don't: the file holds {held} numbers in "
            f"{len(tensors)} tensors, {architecture.name} of 1,000 classes has "
            f"{architecture.parameters} parameters"
        )
    return (
        f"{seen.path} does not fit torchvision's {architecture.name}, nor any other of its "
        f"classifiers: {what}. Write it as model.state_dict() of an unchanged torchvision model"
    )
