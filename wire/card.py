"""The model card: what a checkpoint is, how to feed it, and what its outputs mean.

A card lies as JSON beside the weights (`NAME.safetensors` and `NAME.json`),
travels to workers in the `Model` message and is shown by the REST API. The
SHA-256 of the weights is its identity: two cards with one hash are one model.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Triple = tuple[float, float, float]


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True):
    """Torchvision's classification preset, as numbers.

    The image is converted to RGB, its shorter side resized to `resize_px` with
    `interpolation` (antialiased), the central `crop_px` square is cut out,
    scaled to [0, 1], and normalised per channel with `mean` and `std`.
    """

    resize_px: Positive
    crop_px: Positive
    interpolation: str = "bilinear"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint, described.

    `id` is the name people see, unique per checkpoint (`googlenet-cifar10`);
    `architecture` is torchvision's builder name; `classes` are the labels in
    output order; `sha256` and `size_bytes` describe the weights file;
    `format` is `safetensors` or `torch` (a `weights_only` state dict);
    `accuracy` maps a data set's name to measured top-1 in [0, 1].
    """

    id: str
    architecture: str
    classes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100_000)]
    preprocessing: Preprocessing
    sha256: Sha256
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    format: str = "safetensors"
    dtype: str = "float32"
    licence: str = "unknown"
    origin: str = ""
    made_by: str = ""
    accuracy: dict[str, float] = {}
    bundled: bool = False
