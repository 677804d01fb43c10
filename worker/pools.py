"""Max-pools without the output that nobody reads.

Torch's pools arrive as operations with two outputs, the maxima and where they were, as only
those know its rounding of sizes. For the second one OpenVINO's CPU plugin computes in
another layout and reorders each pool's values, and int8 ends before it: without it GoogLeNet
takes 3 % less in bf16, 18 % less in int8 (`python -m tests.bench graphs`).
"""

from __future__ import annotations

import importlib
from typing import Any

from worker.openvino_import import import_openvino

POOL = "MaxPool"
OUTPUTS = 2


def drop_pool_indices(model: Any) -> int:
    """Put pools with one output where only the maxima are read; says how many.

    `model` is an `openvino.Model` whose sizes are known but for the batch's. A pool whose sizes
    the plain kind would round to others than torch does stays as it is, and so does one
    with gaps in its window, which the plain kind hasn't.
    """
    import_openvino()  # before anything of it is imported, past the guard
    opset1: Any = importlib.import_module("openvino.opset1")
    dropped = 0
    for pool in model.get_ordered_ops():
        if pool.get_type_name() != POOL or len(pool.outputs()) < OUTPUTS or _is_read(pool):
            continue
        said = pool.get_attributes()
        if any(gap != 1 for gap in said["dilations"]):
            continue
        plain = opset1.max_pool(
            pool.input_value(0),
            said["strides"],
            said["pads_begin"],
            said["pads_end"],
            said["kernel"],
            rounding_type="floor" if said["rounding_type"] == "floor" else "ceil",
            auto_pad=said["auto_pad"],
        )
        if plain.output(0).get_partial_shape() != pool.output(0).get_partial_shape():
            continue
        plain.set_friendly_name(pool.get_friendly_name())
        pool.output(0).replace(plain.output(0))
        dropped += 1
    model.validate_nodes_and_infer_types()
    return dropped


def _is_read(pool: Any) -> bool:
    """Whether anything takes the places of the maxima."""
    return bool(pool.output(1).get_target_inputs())
