"""Checkpoints and starting weights: drawn anew, or taken from a checkpoint where they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import nn

from wire.card import Card, Preprocessing
from wire.errors import EnvironmentFault
from worker.models import card_for_torchvision
from worker.statedict import format_of, read_state


def initialise(model: nn.Module) -> None:
    """Draw convolutions anew by He's rule (He et al. 2015, fan-out, ReLU), from torch's generator.

    Torchvision leaves some families with the default of `nn.Conv2d`, whose
    variance is a third of that.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def start_from(model: nn.Module, weights: Path) -> list[str]:
    """Copy every tensor that fits by name and shape; return the names of those that start anew.

    The classifier differs wherever the classes do, so a misfit there is the
    rule; with less than half of the network's values filled it is another
    architecture.

    Raises:
        EnvironmentFault: the file is unreadable or of another architecture.
    """
    state = read_state(weights, format_of(weights))
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if _values(fitting) < 0.5 * _values(own):
        raise EnvironmentFault(
            "weights_dont_fit",
            f"only {len(fitting)} of the network's {len(own)} tensors are in {weights} with their"
            " shape; is --arch the file's architecture?",
        )
    model.load_state_dict(fitting, strict=False)
    return [key for key in own if key not in fitting and not key.endswith("num_batches_tracked")]


def read_checkpoint(card_path: Path) -> tuple[Card, Path]:
    """Return a card and the weights beside it.

    Raises:
        EnvironmentFault: the file is missing, or no card.
    """
    try:
        card = msgspec.json.decode(card_path.read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError) as fault:
        raise EnvironmentFault(
            "not_a_card", f"{card_path} is not a model's card: {fault}; give NAME.json"
        ) from fault
    suffix = ".safetensors" if card.format == "safetensors" else ".pth"
    return card, card_path.with_suffix(suffix)


def preprocessing_of(architecture: str, weights: Path) -> Preprocessing:
    """How `weights` were fed: from the card beside them, else from torchvision's metadata."""
    card = weights.with_suffix(".json")
    if card.is_file():
        return msgspec.json.decode(card.read_bytes(), type=Card).preprocessing
    return card_for_torchvision(architecture, weights).preprocessing


def _values(state: Mapping[str, torch.Tensor]) -> int:
    return sum(value.numel() for value in state.values())
