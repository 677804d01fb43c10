"""Weights for clusters under test: the real ones where they are, random ones elsewhere."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tests.shared import SQUEEZENET, shared_file


def default_weights(model: str, folder: Path) -> Path:
    """A weights file for `model`: shared ImageNet SqueezeNet, or random weights in `folder`."""
    if model == "squeezenet1_1" and (real := shared_file(SQUEEZENET)) is not None:
        return real
    return random_weights(model, folder / f"{model}-random.pth")


def random_weights(model: str, path: Path, *, seed: int = 0) -> Path:
    """Write an untrained state dict of torchvision's `model` with 1,000 classes to `path`.

    Labels made with it mean nothing; that they are equal on every worker does.
    """
    path.write_bytes(_random_state_dict(model, seed))
    return path


@functools.cache
def _random_state_dict(model: str, seed: int) -> bytes:
    import torch

    from worker.models import build

    with torch.random.fork_rng(), tempfile.SpooledTemporaryFile() as buffer:
        torch.manual_seed(seed)
        state = {name: value.half() for name, value in build(model, 1000).state_dict().items()}
        torch.save(state, buffer)
        buffer.seek(0)
        return buffer.read()


def lively_weights(model: str, path: Path, *, seed: int = 0) -> Path:
    """As `random_weights` in single precision, with logits that depend on the image.

    Batch normalisation that has seen no data shrinks whatever comes through it
    (MobileNetV2's logits to 1e-9, where any two engines agree); here it has seen noise.
    """
    import torch
    from torch import nn

    from worker.models import build

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(model, 1000).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            network(torch.randn(4, 3, 224, 224))
    torch.save(network.state_dict(), path)
    return path
