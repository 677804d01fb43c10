"""Post-training quantisation to int8, with images of the user's own.

NNCF runs the network on the images, notes the range of every layer's values, and
rounds weights and values to 8 bits within it. The result is kept only if the best
class stays that of fp32 for 99 % of images it was not measured with.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.card import Card
from wire.errors import EnvironmentFault
from worker.agreement import AGREEMENT_MIN_INT8, same_best
from worker.decode import DecodeLimits, Decoder, ImageFault
from worker.openvino_import import import_openvino, the_core
from worker.preprocess import Preprocessor

IMAGES_MIN = 64
IMAGES_MAX = 600
"""NNCF's documentation advises about 300 to measure with; as many are held back to judge by."""


def quantise(model: Any, card: Card, samples: Path) -> Any:
    """Return `model` (an `openvino.Model` with pixels in) in int8.

    Raises `EnvironmentFault`: `samples_missing`, `int8_missing` without NNCF, and
    `int8_disagrees` if fewer than 99 % of best classes stay the same.
    """
    import_openvino()  # before NNCF does, past the guard
    try:
        nncf: Any = importlib.import_module("nncf")
    except ImportError as error:
        raise EnvironmentFault(
            "int8_missing", f"int8 needs NNCF ({error}): install lookout[int8]"
        ) from error
    images = _images(card, samples)
    exact = _logits(model, images)
    measured, held_back = images[0::2], images[1::2]
    quantised = nncf.quantize(
        model,
        nncf.Dataset([image[None] for image in measured]),
        subset_size=len(measured),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
    )
    same = same_best(exact[1::2], _logits(quantised, held_back))
    if same < AGREEMENT_MIN_INT8:
        raise EnvironmentFault(
            "int8_disagrees",
            f"in int8 only {same:.1%} of {len(held_back)} images keep their best class; at least"
            f" {AGREEMENT_MIN_INT8:.0%} must: give more images like those to be classified, or use"
            " --precision bf16",
        )
    return quantised


def _images(card: Card, samples: Path) -> NDArray[np.uint8]:
    """Pixels uint8 [n, h, w, 3] of up to `IMAGES_MAX` images, in the order of their paths."""
    paths = sorted(path for path in samples.rglob("*") if path.is_file())
    found = list(itertools.islice(_decoded(card, paths), IMAGES_MAX))
    if len(found) < IMAGES_MIN:
        raise EnvironmentFault(
            "samples_missing",
            f"{samples} has {len(found)} images that can be decoded; int8 needs {IMAGES_MIN}, and"
            " some hundred are better",
        )
    return np.stack(found)


def _decoded(card: Card, paths: list[Path]) -> Iterator[NDArray[np.uint8]]:
    decoder, prepare = Decoder(DecodeLimits()), Preprocessor(card.preprocessing)
    for path in paths:
        try:
            yield prepare.pixels(decoder.decode(path.read_bytes()))
        except ImageFault:
            continue  # a label file, or whatever else lies among images


def _logits(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    request = the_core().compile_model(model, "CPU").create_infer_request()
    rows = [request.infer({0: image[None]})[0].copy() for image in images]
    logits: NDArray[np.float32] = np.concatenate(rows)
    return logits
