"""A trained model that another one learns to answer like."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from wire.card import Card
from wire.errors import EnvironmentFault
from worker.models import load_model
from worker.train.augment import Normalisation
from worker.train.initial import read_checkpoint


class Teacher:
    """A frozen classifier; it sees the pupil's pixels, at its own size and normalisation."""

    def __init__(self, card: Card, weights: Path, device: torch.device) -> None:
        self.id = card.id
        network = load_model(card, weights).to(device)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._side_px = card.preprocessing.crop_px
        self._normalisation = Normalisation(
            mean=card.preprocessing.mean, std=card.preprocessing.std
        )

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """What the teacher says of float32 [n, 3, h, w] in [0, 1]; float [n, classes]."""
        side = (self._side_px, self._side_px)
        if images.shape[-2:] == side:
            resized = images.clone()
        else:
            resized = F.interpolate(
                images, size=side, mode="bilinear", antialias=True, align_corners=False
            )
        answers: torch.Tensor = self._network(self._normalisation.apply(resized))
        return answers


def load_teacher(card_path: Path, classes: tuple[str, ...], device: torch.device) -> Teacher:
    """Read the checkpoint that a card belongs to.

    Raises:
        EnvironmentFault: card or weights cannot be read, or it knows other classes.
    """
    card, weights = read_checkpoint(card_path)
    if tuple(card.classes) != classes:
        raise EnvironmentFault(
            "other_classes",
            f"--teacher {card.id} knows {_listed(tuple(card.classes))}, the images are of"
            f" {_listed(classes)}; train the teacher on a folder with the same classes",
        )
    return Teacher(card, weights, device)


def _listed(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:5])
    return f"{len(classes)} classes ({shown}{', …' if len(classes) > 5 else ''})"
