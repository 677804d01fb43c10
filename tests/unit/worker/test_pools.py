"""Max-pools lose an output that nobody reads, and nothing else."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.weights import lively_weights
from worker.convert import convert
from worker.models import card_for_torchvision
from worker.openvino_import import import_openvino, the_core
from worker.pools import POOL, drop_pool_indices

PX = 13


def graph(
    *,
    strides: int = 2,
    pad: int = 0,
    kernel: int = 3,
    dilation: int = 1,
    rounding: str = "ceil_torch",
    reads_places: bool = False,
) -> Any:
    """One pool of torch's kind over [?, 2, PX, PX]."""
    openvino = import_openvino()
    new: Any = importlib.import_module("openvino.opset14")
    image = new.parameter([-1, 2, PX, PX], np.float32)
    pool = new.max_pool(
        image, [strides] * 2, [dilation] * 2, [pad] * 2, [pad] * 2, [kernel] * 2, rounding
    )
    return openvino.Model([pool.output(0), pool.output(1)][: 1 + reads_places], [image])


def pools(model: Any) -> list[int]:
    """How many outputs each pool has."""
    return [len(op.outputs()) for op in model.get_ops() if op.get_type_name() == POOL]


def maxima(model: Any) -> np.ndarray:
    image = np.random.default_rng(5).normal(size=(2, 2, PX, PX)).astype(np.float32)
    answer: np.ndarray = the_core().compile_model(model, "CPU")([image])[0]
    return answer


@pytest.mark.parametrize("rounding", ["ceil_torch", "ceil", "floor"])
@pytest.mark.parametrize(("strides", "pad", "kernel"), [(2, 0, 3), (1, 1, 3), (2, 1, 3), (3, 0, 2)])
def test_what_stays_is_the_same(rounding: str, strides: int, pad: int, kernel: int) -> None:
    made = {"strides": strides, "pad": pad, "kernel": kernel, "rounding": rounding}
    before, after = graph(**made), graph(**made)
    assert drop_pool_indices(after) == 1
    assert (pools(before), pools(after)) == ([2], [1])
    assert np.array_equal(maxima(before), maxima(after))


@pytest.mark.parametrize(
    "kept",
    [
        {"reads_places": True},
        {"dilation": 2},
        # Windows of 2 that begin at -1, 2, 5, 8, 11: torch leaves out a sixth in the padding.
        {"strides": 3, "pad": 1, "kernel": 2},
    ],
)
def test_what_the_plain_kind_cannot_do_is_kept(kept: dict[str, Any]) -> None:
    model = graph(**kept)
    assert drop_pool_indices(model) == 0
    assert pools(model) == [2]


def test_every_pool_of_a_converted_network_is_plain(tmp_path: Path) -> None:
    name = "squeezenet1_1"
    weights = lively_weights(name, tmp_path / "s.pth")
    assert pools(convert(card_for_torchvision(name, weights), weights)) == [1, 1, 1]
