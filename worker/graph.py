"""The network with its input side: what every engine computes, as one torch module."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from wire.card import Card, Preprocessing
from worker.models import load_model

WHITE = 255.0


class WithPixels(nn.Module):
    """uint8 [n, h, w, 3] → logits float32 [n, classes]: scale, normalise, then the network.

    Bytes come in because they are a quarter of the traffic, and because a graph
    does in passing what takes numpy 0.4 ms an image of 224 px. Normalisation happens
    in float32 whatever the network computes in, and so does the last layer: its logits
    are what decides, and bfloat16 rounds them to 8 bits. Measured with SqueezeNet and 100
    photographs and their mirror images: 3 of 200 best classes turn with a last layer
    in bfloat16, 1 of 200 (a tie within 0.2 %) with one in float32.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, recipe: Preprocessing, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype)
        if dtype is not torch.float32:
            _keep_last_layer_exact(self.network)
        self._dtype = dtype
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(recipe.std).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Raises whatever the network raises."""
        # Channels stay last in memory: only the order of the axes' names changes.
        scaled = pixels.permute(0, 3, 1, 2).float() / WHITE
        normalised = (scaled - self.mean) / self.std
        logits: torch.Tensor = self.network(normalised.to(self._dtype)).float()
        return logits


def _keep_last_layer_exact(network: nn.Module) -> None:
    """Let the last layer with weights, and what follows it, compute in float32."""
    layers = [part for part in network.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    if layers:
        layers[-1].float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))


def load_graph(card: Card, weights: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The checkpoint as `WithPixels`, in eval mode, channels last. Raises `EnvironmentFault`."""
    network = load_model(card, weights)
    whole = WithPixels(network, card.preprocessing, dtype).eval().requires_grad_(False)
    return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def traced(
    graph: nn.Module, card: Card, device: torch.device | None = None
) -> torch.jit.ScriptModule:
    """The graph as TorchScript for batches of any size, with its weights folded in."""
    px = card.preprocessing.crop_px
    # Two images: with one, torch may take the size of the batch for a constant.
    example = torch.zeros((2, px, px, 3), dtype=torch.uint8, device=device)
    with torch.inference_mode(), warnings.catch_warnings():
        # TorchScript is deprecated in favour of what wants a C++ compiler on every machine.
        warnings.simplefilter("ignore")
        script = torch.jit.trace(graph, example, check_trace=False)
        return torch.jit.freeze(script)  # type: ignore[no-any-return]
