"""Classifiers: built by name, filled from a checkpoint that must fit, stored with a card.

Owns the checks between a card, its weights file and the network. Preprocessing
belongs to the card alone: networks are built without torchvision's
`transform_input`, and `card_for_torchvision` folds it into mean and std.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from wire.card import Card, Preprocessing
from wire.errors import EnvironmentFault
from worker.identity import check_identity, sha256_of
from worker.statedict import (
    FLOAT_DTYPES,
    format_of,
    read_state,
    replacing,
    write_state,
)
from worker.vision import import_torchvision

FAULTS_SHOWN = 8
_DTYPE_NAMES = {dtype: str(dtype).removeprefix("torch.") for dtype in FLOAT_DTYPES}
# Torchvision's two families with auxiliary heads; the other builders refuse these arguments.
_PLAIN = {"aux_logits": False, "init_weights": False, "transform_input": False}
_BUILDER_OPTIONS = {"googlenet": _PLAIN, "inception_v3": _PLAIN}
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# With `transform_input` the published weights of these two see (x - 0.5) / 0.5.
_HALF = (0.5, 0.5, 0.5)


def build(architecture: str, classes: int, input_px: int | None = None) -> nn.Module:
    """Return torchvision's classifier `architecture` for `classes` outputs, untrained.

    Auxiliary heads are left out. `input_px` matters only to vision transformers,
    whose position table has one entry per patch.

    Raises:
        EnvironmentFault: torchvision has no such classifier.
    """
    models = import_torchvision().models
    known = models.list_models(module=models)
    if architecture not in known:
        raise EnvironmentFault(
            "unknown_architecture",
            f"{architecture!r} is no torchvision classifier; known: {', '.join(known)}",
        )
    options: dict[str, Any] = dict(_BUILDER_OPTIONS.get(architecture, {}))
    if architecture.startswith("vit_") and input_px is not None:
        options["image_size"] = input_px
    model: nn.Module = models.get_model(architecture, num_classes=classes, **options)
    return model


def load_model(card: Card, weights: Path) -> nn.Module:
    """Return the network of `card` in eval mode and float32, filled from `weights`.

    The file may hold half precision, and auxiliary heads, which are dropped.

    Raises:
        EnvironmentFault: the file is not the card's (`weights_mismatch`), cannot
            be read, or its tensors do not fit (`weights_dont_fit`), each named.
    """
    check_identity(card, weights)
    state = read_state(weights, card.format)
    _check_dtype(card, state)
    model = build(card.architecture, len(card.classes), card.preprocessing.crop_px)
    fill(model, state, f"{weights.name} and card {card.id!r} ({card.architecture})")
    return model.float().eval().requires_grad_(False)


def fill(model: nn.Module, state: Mapping[str, torch.Tensor], what: str) -> None:
    """Copy `state` into `model`; every tensor must have its place and shape.

    `what` names both in the error. Auxiliary heads are ignored, and so is a
    missing `num_batches_tracked`, which old files lack and inference never reads.

    Raises:
        EnvironmentFault: `weights_dont_fit`, or `weights_not_finite`.
    """
    own = model.state_dict()
    wanted = OrderedDict((k, v) for k, v in state.items() if not k.startswith(_AUXILIARY))
    # Without versions torch takes a layout for its oldest one and converts it.
    wanted._metadata = getattr(state, "_metadata", own._metadata)  # type: ignore[attr-defined]
    faults = [
        f"{key} has shape {list(wanted[key].shape)}, the network wants {list(own[key].shape)}"
        for key in wanted
        if key in own and wanted[key].shape != own[key].shape
    ]
    if faults:
        raise _misfit(what, faults)
    missing, unexpected = model.load_state_dict(wanted, strict=False)
    faults = [f"{key} is missing" for key in missing if not key.endswith("num_batches_tracked")]
    faults += [f"{key} {list(wanted[key].shape)} is not in the network" for key in unexpected]
    if faults:
        raise _misfit(what, faults)
    _check_finite(model, what)


def card_for_torchvision(architecture: str, weights: Path) -> Card:
    """Describe a file in torchvision's layout by torchvision's own metadata.

    The published file is recognised by the start of its SHA-256, which stands
    in its name; for any other file the first published weights' classes and
    preprocessing are taken. GoogLeNet and Inception were published with
    `transform_input`, which renormalises to mean and std 0.5.

    Raises:
        EnvironmentFault: torchvision publishes no weights of `architecture`.
    """
    sha256 = sha256_of(weights)
    entry, published = _published(architecture, sha256)
    preset = entry.transforms()
    plain = architecture in _BUILDER_OPTIONS
    state = read_state(weights, format_of(weights))
    metrics = entry.meta.get("_metrics", {}).get("ImageNet-1K", {})
    return Card(
        id=weights.stem,
        architecture=architecture,
        classes=list(entry.meta["categories"]),
        preprocessing=Preprocessing(
            resize_px=preset.resize_size[0],
            crop_px=preset.crop_size[0],
            interpolation=preset.interpolation.value,
            mean=_HALF if plain else tuple(preset.mean),
            std=_HALF if plain else tuple(preset.std),
        ),
        sha256=sha256,
        size_bytes=weights.stat().st_size,
        format=format_of(weights),
        dtype=_dtype_name(state),
        licence="see torchvision's and ImageNet's terms",
        origin=entry.url if published else f"torchvision layout, preset of {entry.name} assumed",
        made_by="torchvision" if published else "",
        accuracy={"imagenet": metrics["acc@1"] / 100} if published and metrics else {},
    )


def save_checkpoint(
    model: nn.Module, card_fields: Mapping[str, Any], path: Path, half: bool = True
) -> Card:
    """Write `path` as `NAME.safetensors` with its card `NAME.json`, and return the card.

    `card_fields` are the fields of `Card` that the file itself does not give.
    The card comes last: without it the weights are no checkpoint.

    Raises:
        EnvironmentFault: a weight is too large for half precision, or not finite.
    """
    weights = path.with_suffix(".safetensors")
    state = {k: _stored(k, v, half) for k, v in model.state_dict().items() if _is_kept(k)}
    write_state(weights, state)
    card = msgspec.convert(
        {
            "id": path.name.removesuffix(".safetensors"),
            **card_fields,
            "sha256": sha256_of(weights),
            "size_bytes": weights.stat().st_size,
            "format": "safetensors",
            "dtype": _dtype_name(state),
        },
        Card,
    )
    write_card(card, path.with_suffix(".json"))
    return card


def write_card(card: Card, path: Path) -> None:
    """Store a card as indented JSON, replacing `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")


def _check_dtype(card: Card, state: Mapping[str, torch.Tensor]) -> None:
    found = _dtype_name(state)
    if found != card.dtype:
        raise EnvironmentFault(
            "weights_dont_fit", f"card {card.id!r} says dtype {card.dtype}, the file holds {found}"
        )


def _dtype_name(state: Mapping[str, torch.Tensor]) -> str:
    """The precision that all floating tensors share, or all of them joined by `+`."""
    names = {
        _DTYPE_NAMES.get(v.dtype, str(v.dtype)) for v in state.values() if v.is_floating_point()
    }
    return "+".join(sorted(names))


def _check_finite(model: nn.Module, what: str) -> None:
    bad = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise EnvironmentFault(
            "weights_not_finite", f"{what}: not finite in {_listed(bad)}; the file is damaged"
        )


def _misfit(what: str, faults: list[str]) -> EnvironmentFault:
    return EnvironmentFault("weights_dont_fit", f"{what} do not fit: {_listed(faults)}")


def _listed(items: list[str]) -> str:
    more = len(items) - FAULTS_SHOWN
    return "; ".join(items[:FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _published(architecture: str, sha256: str) -> tuple[Any, bool]:
    """Torchvision's weights entry for a file, and whether the file is the published one."""
    models = import_torchvision().models
    try:
        entries = list(models.get_model_weights(architecture))
    except ValueError as fault:
        raise EnvironmentFault(
            "unknown_architecture", f"{architecture!r} is no torchvision classifier"
        ) from fault
    if not entries:
        raise EnvironmentFault(
            "no_metadata",
            f"torchvision publishes no weights of {architecture}, so nothing tells its classes;"
            " write a card beside the file",
        )
    for entry in entries:
        if sha256.startswith(Path(entry.url).stem.rpartition("-")[2]):
            return entry, True
    return entries[0], False


def _is_kept(key: str) -> bool:
    return not key.startswith(_AUXILIARY)


def _stored(key: str, value: torch.Tensor, half: bool) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    stored = value.to(torch.float16 if half else torch.float32)
    if not stored.isfinite().all():
        raise EnvironmentFault(
            "weights_not_finite",
            f"{key} reaches {value.abs().max().item():g}, which"
            f" {'half precision (65504 at most) cannot hold' if half else 'is not finite'}",
        )
    return stored
