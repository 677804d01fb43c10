"""What a checkpoint got right, in numbers: overall, per class, and what it took for what.

Pure: from labels and predictions to values; `plots` draws them.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray


class ClassReport(msgspec.Struct, frozen=True, kw_only=True):
    """One class: `recall` of its `images`, `precision` of what was called so; in [0, 1]."""

    name: str
    images: int
    recall: float
    precision: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A held-out evaluation. `confusion[i][j]` counts images of class i taken for class j."""

    checkpoint: str
    data: str
    images: int
    correct: int
    accuracy: float
    top5: float
    classes: list[ClassReport]
    confusion: list[list[int]]


def make_report(
    checkpoint: str,
    data: str,
    classes: tuple[str, ...],
    labels: NDArray[np.int64],
    logits: NDArray[np.float32],
) -> Report:
    """Count what logits [n, classes] say against labels [n].

    A class without images has recall 0, one never predicted precision 0.
    """
    predicted = logits.argmax(1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    hits, true, called = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    best5 = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return Report(
        checkpoint=checkpoint,
        data=data,
        images=len(labels),
        correct=int(hits.sum()),
        accuracy=float(hits.sum() / len(labels)),
        top5=float((best5 == labels[:, None]).any(1).mean()),
        classes=[
            ClassReport(
                name=name,
                images=int(true[i]),
                recall=float(hits[i] / max(1, true[i])),
                precision=float(hits[i] / max(1, called[i])),
            )
            for i, name in enumerate(classes)
        ],
        confusion=confusion.tolist(),
    )
