"""Architectures built by name."""

from __future__ import annotations

from torch import nn

from wire.errors import EnvironmentFault
from worker.vision import import_torchvision

# Torchvision's two families with auxiliary heads; the other builders refuse these arguments.
_PLAIN = {"aux_logits": False, "init_weights": False, "transform_input": False}
_BUILDER_OPTIONS = {"googlenet": _PLAIN, "inception_v3": _PLAIN}


def build(architecture: str, classes: int) -> nn.Module:
    """Return torchvision's classifier `architecture` for `classes` outputs, untrained.

    Auxiliary heads are left out, and so is `transform_input`: preprocessing is
    the card's alone (see `card_for_torchvision`).

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
    options = _BUILDER_OPTIONS.get(architecture, {})
    model: nn.Module = models.get_model(architecture, num_classes=classes, **options)
    return model
