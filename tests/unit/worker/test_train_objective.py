"""Losses: of mixed labels, and against a teacher."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from worker.train.objective import distillation, label_loss

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 3.0], [-2.0, 1.0, 0.0]])
LABELS = torch.tensor([0, 2, 1])


def test_whole_images_have_the_usual_loss() -> None:
    usual = F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    torch.testing.assert_close(label_loss(LOGITS, LABELS, None, 0.1), usual)
    torch.testing.assert_close(label_loss(LOGITS, LABELS, torch.ones(3), 0.1), usual)


def test_a_pasted_part_counts_for_the_label_of_the_image_before() -> None:
    own = torch.tensor([0.25, 1.0, 0.0])
    targets = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    wanted = F.cross_entropy(LOGITS, targets, label_smoothing=0.1)
    torch.testing.assert_close(label_loss(LOGITS, LABELS, own, 0.1), wanted)


def test_agreeing_with_the_teacher_costs_nothing_and_disagreeing_does() -> None:
    shifted = LOGITS + 5  # The same answer: softmax does not see a shift.
    assert distillation(LOGITS, shifted, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert distillation(LOGITS, LOGITS.flip(1), 2.0).item() > 0.5


def test_gradients_keep_their_size_whatever_the_temperature() -> None:
    """Where logits are small beside it, a gradient is their difference / classes."""
    sizes = []
    for temperature in (4.0, 16.0):
        logits = LOGITS.clone().requires_grad_()
        distillation(logits, LOGITS.flip(1), temperature).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        sizes.append(logits.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)
