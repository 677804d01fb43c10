"""A checkpoint judged as it will be served: the worker's decoding, preprocessing and float32."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wire.card import Card
from wire.errors import EnvironmentFault
from worker.decode import DecodeLimits, Decoder, ImageFault
from worker.models import load_model
from worker.preprocess import Preprocessor
from worker.train.folder import Folder

BATCH_IMAGES = 64


@dataclass(frozen=True, slots=True)
class Verdicts:
    """True classes and logits float32 [n, classes] of the images of a folder, in its order."""

    folder: Folder
    logits: NDArray[np.float32]

    @property
    def labels(self) -> NDArray[np.int64]:
        """True class of each image."""
        return np.array([label for _, label in self.folder.images], np.int64)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Class with the highest logit of each image."""
        return np.asarray(self.logits.argmax(1), np.int64)


def judge(
    card: Card, weights: Path, folder: Folder, on_image: Callable[[], None] = lambda: None
) -> Verdicts:
    """Classify every image of `folder` with the checkpoint.

    Raises:
        EnvironmentFault: the checkpoint does not fit its card, or an image cannot be decoded.
    """
    model = load_model(card, weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    logits = []
    with torch.inference_mode():
        for batch in _batches(card, [path for path, _ in folder.images]):
            logits.append(model(torch.from_numpy(batch)).numpy())
            for _ in range(len(batch)):
                on_image()
    return Verdicts(folder=folder, logits=np.concatenate(logits))


def _batches(card: Card, paths: list[Path]) -> Iterator[NDArray[np.float32]]:
    decoder, preprocess = Decoder(DecodeLimits()), Preprocessor(card.preprocessing)

    def prepare(path: Path) -> NDArray[np.float32]:
        try:
            return preprocess(decoder.decode(path.read_bytes()))
        except (OSError, ImageFault) as fault:
            raise EnvironmentFault(
                "unreadable_image", f"{path} cannot be decoded: {fault}; repair or remove it"
            ) from fault

    remaining = iter(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while part := list(itertools.islice(remaining, BATCH_IMAGES)):
            yield np.stack(list(pool.map(prepare, part)))
