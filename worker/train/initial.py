"""Starting weights: drawn anew, or taken from a file where they fit."""

from __future__ import annotations

import torch
from torch import nn


def initialise(model: nn.Module, seed: int) -> None:
    """Draw convolutions anew by He's rule (He et al. 2015, fan-out, ReLU).

    Torchvision leaves some families with the default of `nn.Conv2d`, whose
    variance is a third of that.
    """
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
