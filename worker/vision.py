"""Torchvision, imported so that it works beside any build of torch.

Torchvision's compiled operators may fail to load: the wheel of the package
index wants CUDA libraries that a CPU-only machine lacks. Its Python part then
still registers fake kernels for two of them and fails at import with `operator
torchvision::nms does not exist`. Classification uses neither, so declaring
their schemas is enough. Every import of torchvision in Lookout goes through
`import_torchvision`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

# Copied from torchvision's csrc/ops/nms.cpp and csrc/ops/quantized/cpu/qnms_kernel.cpp.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@functools.cache
def import_torchvision() -> ModuleType:
    """Return the torchvision package, declaring operators that its build lacks."""
    _load_compiled_operators()
    _declare_missing_operators()
    return importlib.import_module("torchvision")


def _load_compiled_operators() -> None:
    """Load torchvision's compiled operators if they can be; they register themselves.

    Torchvision does the same at import and ignores a failure; doing it first
    tells which schemas are missing without importing the package halfway.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue


@functools.cache
def _library() -> torch.library.Library:
    """The registration must outlive the import: dropping it removes the schemas."""
    return torch.library.Library("torchvision", "FRAGMENT")


def _declare_missing_operators() -> None:
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            _library().define(schema)
