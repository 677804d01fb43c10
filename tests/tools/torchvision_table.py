"""Regenerate `master/models/torchvision.json` and `imagenet1k.json` from torchvision.

    python -m tests.tools.torchvision_table

The master knows torchvision's classifiers from these two files, because it
must not import torch. A test holds them against the installed torchvision.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec
import torch

from master.models.catalogue import (
    CLASSES_PATH,
    TABLE_PATH,
    Architecture,
    Notices,
    Pretrained,
    Table,
)
from master.models.layout import Tensor, layout_of
from wire.card import Preprocessing
from worker.models import build
from worker.vision import import_torchvision

# The same expression as `torch.hub.HASH_REGEX`.
_HASH: Final = re.compile(r"-([a-f0-9]*)\.")
_DATASET: Final = "ImageNet-1K"
# No other tensor of any of the models has this first dimension.
CLASSES: Final = 1000
_INITIALISERS: Final = (
    *("constant_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_"),
    *("trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_"),
)
_NOTICES: Final = Notices(
    licence="torchvision is BSD-3-Clause; weights trained on ImageNet-1K may carry its terms",
    licence_swag="CC-BY-NC-4.0 (SWAG); pre-training and ImageNet-1K data may carry further terms",
    about="https://github.com/pytorch/vision/blob/main/README.md#pre-trained-model-license",
)


def make_table() -> tuple[Table, list[str]]:
    """The table of all classifiers with ImageNet weights, and the classes that they share."""
    torchvision = import_torchvision()
    models = torchvision.models
    names: list[str] = models.list_models(module=models)
    made = [_architecture(models, name) for name in names]
    categories = {tuple(classes) for _, each in made for classes in each}
    (classes,) = categories  # one list for all, or the table's shape is wrong
    version = torchvision.__version__.partition("+")[0]
    table = Table(torchvision=version, notices=_NOTICES, architectures=[one for one, _ in made])
    return table, list(classes)


def _architecture(models: Any, name: str) -> tuple[Architecture, list[list[str]]]:
    enum = models.get_model_weights(name)
    usable = [weights for weights in enum if weights.meta["categories"] is not None]
    with parameters_without_memory():
        model = build(name, CLASSES)
    classifier, inputs = _classifier(model)
    tensors = _tensors(model)
    architecture = Architecture(
        name=name,
        classifier=classifier,
        classifier_inputs=inputs,
        parameters=sum(value.numel() for value in model.parameters()),
        layout=layout_of(tensors, classifier),
        default=enum.DEFAULT.name,
        weights=[_pretrained(weights, model) for weights in usable],
    )
    return architecture, [weights.meta["categories"] for weights in usable]


@contextlib.contextmanager
def parameters_without_memory() -> Iterator[None]:
    """Parameters made inside have shapes and no data: the largest model would need 2.6 GB.

    `torch.device("meta")` does not do here: RegNet computes its widths with tensors.
    """
    original = torch.nn.Module.register_parameter

    def register(module: torch.nn.Module, name: str, value: torch.nn.Parameter | None) -> None:
        original(module, name, None if value is None else torch.nn.Parameter(value.to("meta")))

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(torch.nn.Module, "register_parameter", register))
        for name in _INITIALISERS:  # of no effect without data, and slow
            patches.enter_context(
                mock.patch.object(torch.nn.init, name, lambda value, *_, **__: value)
            )
        yield


def _tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: Tensor(dtype=str(value.dtype).removeprefix("torch."), shape=tuple(value.shape))
        for name, value in model.state_dict().items()
    }


def _classifier(model: torch.nn.Module) -> tuple[str, int]:
    """Name of the layer whose output dimension is the class count, and its input width."""
    state = model.state_dict()
    (layer,) = {n.rpartition(".")[0] for n, v in state.items() if v.shape[:1] == (CLASSES,)}
    return layer, state[f"{layer}.weight"].shape[1]


def _pretrained(weights: Any, model: torch.nn.Module) -> Pretrained:
    meta, preset = weights.meta, weights.transforms()
    found = _HASH.search(weights.url)
    assert found is not None, f"{weights.url} carries no hash"
    mean, std = preset.mean, preset.std
    if hasattr(model, "transform_input"):
        # These weights' builders set transform_input, which renormalises to mean and std 0.5
        # inside the network; the worker builds it without and the card says it instead.
        mean, std = [0.5] * 3, [0.5] * 3
    return Pretrained(
        name=weights.name,
        url=weights.url,
        hash_prefix=found.group(1),
        size_mib=meta["_file_size"],
        preprocessing=Preprocessing(
            resize_px=preset.resize_size[0],
            crop_px=preset.crop_size[0],
            interpolation=preset.interpolation.value,
            mean=tuple(mean),
            std=tuple(std),
        ),
        top1=round(meta["_metrics"][_DATASET]["acc@1"] / 100, 5),
        top5=round(meta["_metrics"][_DATASET]["acc@5"] / 100, 5),
        recipe=meta["recipe"],
        swag="SWAG" in meta.get("license", ""),
    )


def rendered() -> dict[Path, bytes]:
    """What the two files must hold."""
    table, classes = make_table()
    return {TABLE_PATH: _json(table), CLASSES_PATH: _json(classes)}


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


if __name__ == "__main__":
    for path, data in rendered().items():
        path.write_bytes(data)
