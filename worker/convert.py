"""`python -m worker.convert`: a checkpoint to OpenVINO's graph, in a process of its own.

Torch is needed for this and for nothing after it. The request names card, weights
and folder; see `convert_in_child`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec

from wire.card import Card
from worker import child
from worker.compiled import MODEL
from worker.openvino_import import import_openvino
from worker.pools import drop_pool_indices

TIMEOUT_S = 600.0


def convert_in_child(
    card: Card, weights: Path, folder: Path, *, samples: Path | None = None
) -> None:
    """Write the graph of a checkpoint into `folder`; quantised to int8 if there are `samples`.

    Raises `EnvironmentFault`.
    """
    request = {
        "card": msgspec.to_builtins(card),
        "weights": str(weights),
        "folder": str(folder),
        "samples": None if samples is None else str(samples),
    }
    child.run("worker.convert", request, TIMEOUT_S)


def convert(card: Card, weights: Path) -> Any:
    """The checkpoint as an `openvino.Model`: uint8 [?, h, w, 3] → float32 [?, classes].

    Weights stay float32: half precision would save the disk 50 MB at most, and
    change logits by more than 1e-4.
    """
    model = as_openvino_converts(card, weights)
    drop_pool_indices(model)
    return model


def as_openvino_converts(card: Card, weights: Path) -> Any:
    """As `convert`, with nothing of ours done to the graph."""
    openvino = import_openvino()
    # Both exist in the wheel only at run time, where type checkers don't see them.
    frontends = importlib.import_module("openvino.frontend")
    decoders = importlib.import_module("openvino.frontend.pytorch.ts_decoder")

    from worker.graph import load_graph, traced

    decoder = decoders.TorchScriptPythonDecoder(traced(load_graph(card, weights), card))
    frontend = frontends.FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    px = card.preprocessing.crop_px
    pixels = model.inputs[0].get_node()
    pixels.set_element_type(openvino.Type.u8)
    pixels.set_partial_shape(openvino.PartialShape([-1, px, px, 3]))
    model.validate_nodes_and_infer_types()
    return model


def convert_here(card: Card, weights: Path, folder: Path, *, samples: Path | None = None) -> None:
    """As `convert_in_child`, in this process, which has torch from then on."""
    model = convert(card, weights)
    if samples is not None:
        from worker.int8 import quantise

        model = quantise(model, card, samples)
    import_openvino().save_model(model, folder / MODEL, compress_to_fp16=False)


def _work(request: dict[str, Any]) -> dict[str, Any]:
    samples = request["samples"]
    convert_here(
        msgspec.convert(request["card"], Card),
        Path(request["weights"]),
        Path(request["folder"]),
        samples=None if samples is None else Path(samples),
    )
    return {}


if __name__ == "__main__":
    child.serve(_work)
