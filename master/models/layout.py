"""The tensors of a checkpoint by name, and a digest that tells architectures apart."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

# Auxiliary heads of GoogLeNet and Inception: in the published files, unused for inference.
_UNUSED: Final = re.compile(r"^(aux[12]|AuxLogits)\.")
# Counters of batch norm, absent from files older than torch 0.4.1 and unused for inference.
_COUNTER: Final = ".num_batches_tracked"
# The names of DenseNet's layers in files older than torch 0.4; torchvision renames them too.
_OLD_DENSENET: Final = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
# Of a vision transformer: one row per patch, so its length follows the input size.
_POSITIONS: Final = "encoder.pos_embedding"
_DIGEST_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as a file's header describes it; `dtype` in torch's words (`float32`)."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds; 1 for a scalar."""
        return math.prod(self.shape)


def layout_of(tensors: Mapping[str, Tensor], classifier: str) -> str:
    """Digest of names and shapes of all that inference needs, whatever the class count."""
    lines = sorted(_lines(tensors, classifier))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGEST_CHARS]


def _lines(tensors: Mapping[str, Tensor], classifier: str) -> Iterator[str]:
    outputs = {f"{classifier}.weight", f"{classifier}.bias"}
    for name, tensor in tensors.items():
        if _UNUSED.match(name) or name.endswith(_COUNTER):
            continue
        shape = list(tensor.shape)
        if name in outputs and shape:
            shape[0] = 0
        if name == _POSITIONS and len(shape) == 3:
            shape[1] = 0
        today = _OLD_DENSENET.sub(r"\1\2", name)
        yield f"{today} {shape}"
