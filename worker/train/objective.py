"""What a step of training makes smaller: the loss against labels, and against a teacher.

Pure.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def label_loss(
    logits: torch.Tensor, labels: torch.Tensor, own: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Mean cross-entropy of float32 [n, classes] with int64 [n], labels smoothed.

    `own`, float32 [n], is the part of each image that is its own where CutMix pasted some of
    the image before it: the label of that one gets the rest.
    """
    if own is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    mine = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    pasted = F.cross_entropy(logits, labels.roll(1), label_smoothing=smoothing, reduction="none")
    return torch.lerp(pasted, mine, own).mean()


def distillation(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divergence from the teacher's softened answers (Hinton et al. 2015), per image.

    Both are float [n, classes]. Times the temperature squared, so that its gradients keep
    their size whatever the temperature.
    """
    mine = F.log_softmax(logits / temperature, 1)
    wanted = F.log_softmax(taught.float() / temperature, 1)
    divergence = F.kl_div(mine, wanted, reduction="batchmean", log_target=True)
    return divergence * temperature**2
