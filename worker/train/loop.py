"""The training loop: steps, epochs, evaluation and what a checkpoint holds.

Knows nothing of files or terminals: `run` stores checkpoints and shows progress.
Every random draw of epoch `e` comes from generators seeded by (seed, e), so a
run resumed at an epoch's start continues as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wire.errors import EnvironmentFault
from worker.train.augment import Normalisation, augment, cutmix, plain
from worker.train.average import Average
from worker.train.decoded import Decoded
from worker.train.objective import distillation, label_loss
from worker.train.optimizer import make_optimizers, rate_factor, scale_rates
from worker.train.settings import Settings
from worker.train.teacher import Teacher

SETTLE_IMAGES = 3072
EVAL_BATCH_IMAGES = 256
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch measured; `val_*` are of the averaged weights."""

    epoch: int
    progress: float
    input_px: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class _Lesson:
    """Normalised images and what is to be learnt from them.

    `own` is the part of each image that is its own, and `taught` the teacher's logits.
    """

    images: torch.Tensor
    labels: torch.Tensor
    own: torch.Tensor | None
    taught: torch.Tensor | None


class Trainer:
    """One run in memory, learning from labels and, where there is one, from a `teacher`.

    `clock` returns monotonic seconds; it decides the schedule only where the
    settings give a time budget.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        device: torch.device,
        clock: Callable[[], float],
        teacher: Teacher | None = None,
    ) -> None:
        self.settings = settings
        self.device = device
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = make_optimizers(self.model, settings)
        self.average = Average(self.model, settings.ema_decay)
        self.bf16 = has_bf16(device)
        self._normalisation = Normalisation(mean=settings.mean, std=settings.std)
        self.epoch = 0
        self.elapsed_s = 0.0
        self._clock = clock
        self._teacher = teacher

    def state(self) -> dict[str, Any]:
        """Everything that a later `restore` needs, safe for `weights_only` loading."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_steps": self.average.steps,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "epoch": self.epoch,
            "elapsed_s": self.elapsed_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.epoch = state["epoch"]
        self.elapsed_s = state["elapsed_s"]

    def progress(self, fraction_of_epoch: float, elapsed_s: float) -> float:
        """Part of the run that is done, in [0, 1]."""
        if self.settings.budget_s > 0:
            return min(1.0, elapsed_s / self.settings.budget_s)
        return min(1.0, (self.epoch + fraction_of_epoch) / self.settings.epochs)

    @property
    def finished(self) -> bool:
        """Whether the schedule has reached its end."""
        return self.progress(0.0, self.elapsed_s) >= 1.0

    def run_epoch(
        self, train: Decoded, val: Decoded, on_step: Callable[[float, float], None]
    ) -> EpochResult:
        """Train once over `train` (or until the budget ends), then evaluate the average on `val`.

        `on_step(progress, loss)` is called after each step.

        Raises:
            EnvironmentFault: the loss is no longer finite.
        """
        started_s = self._clock() - self.elapsed_s
        torch.manual_seed(self._seed())
        self.model.train()
        total = torch.zeros((), device=self.device)
        steps = 0
        progress = self.progress(0.0, self.elapsed_s)
        input_px = self.settings.input_px(progress)
        rng = torch.Generator().manual_seed(self._seed())
        for part, rows in self._batches(len(train.labels), rng):
            input_px = self.settings.input_px(progress)
            lesson = self._lesson(train, rows, input_px, rng)
            scale_rates(self.optimizers, rate_factor(progress, self.settings.warmup))
            loss = self._step(lesson)
            progress = self.progress(part, self._clock() - started_s)
            total += loss
            steps += 1
            on_step(progress, float(loss))
            if progress >= 1.0:
                break
        self.epoch += 1
        val_loss, val_accuracy = self._evaluate_average(train, val, input_px)
        self.elapsed_s = self._clock() - started_s
        return EpochResult(
            epoch=self.epoch,
            progress=self.progress(0.0, self.elapsed_s),
            input_px=input_px,
            train_loss=float(total) / max(1, steps),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            elapsed_s=self.elapsed_s,
        )

    def _lesson(
        self, train: Decoded, rows: torch.Tensor, input_px: int, rng: torch.Generator
    ) -> _Lesson:
        """Change the images of `rows`, and ask the teacher what it sees in them."""
        bounds = self.settings.augmentation
        images = augment(train.pixels[rows].to(self.device), input_px, bounds, rng)
        labels = train.labels[rows].to(self.device)
        own = None
        if bounds.cutmix:
            images, own = cutmix(images, bounds.cutmix, rng)
        taught = None
        if self._teacher is not None:
            with self._autocast(), torch.inference_mode():
                taught = self._teacher.logits(images)
        return _Lesson(self._normalisation.apply(images), labels, own, taught)

    def _step(self, lesson: _Lesson) -> torch.Tensor:
        with self._autocast():
            logits = self.model(lesson.images)
        settings = self.settings
        loss = label_loss(logits.float(), lesson.labels, lesson.own, settings.label_smoothing)
        if lesson.taught is not None:
            imitation = distillation(logits.float(), lesson.taught, settings.temperature)
            loss = torch.lerp(loss, imitation, settings.teacher_weight)
        if not math.isfinite(loss.item()):
            raise EnvironmentFault(
                "diverged",
                f"the loss became {loss.item()} in epoch {self.epoch + 1}; resume from the last"
                f" checkpoint with a smaller --lr (now {self.settings.learning_rate:g})",
            )
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.model)
        return loss.detach()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _seed(self) -> int:
        return self.settings.seed * _SEED_STRIDE + self.epoch

    def _batches(self, images: int, rng: torch.Generator) -> Iterator[tuple[float, torch.Tensor]]:
        """Yield (part of the epoch done after it, rows) in a fresh random order.

        A short rest is dropped unless it is all there is: batch-norm statistics
        of a few images are noise.
        """
        order = torch.randperm(images, generator=rng)
        size = min(self.settings.batch_images, images)
        count = images // size
        for step in range(count):
            yield (step + 1) / count, order[step * size : (step + 1) * size]

    def _evaluate_average(self, train: Decoded, val: Decoded, input_px: int) -> tuple[float, float]:
        """Settle the averaged weights, then return their loss and top-1 on `val`."""
        stride = max(1, len(train.labels) // SETTLE_IMAGES)
        settling = train.pixels[::stride]
        with self._autocast():
            self.average.settle(self._inputs(settling, input_px))
            with torch.inference_mode():
                logits = [self.average.model(x) for x in self._inputs(val.pixels, input_px)]
        scores = torch.cat(logits).float().cpu()
        accuracy = (scores.argmax(1) == val.labels).float().mean().item()
        return F.cross_entropy(scores, val.labels).item(), accuracy

    def _inputs(self, pixels: torch.Tensor, input_px: int) -> Iterator[torch.Tensor]:
        """Unaugmented images in batches, as the deployed network will see them."""
        for part in pixels.split(EVAL_BATCH_IMAGES):
            yield self._normalisation.apply(plain(part.to(self.device), input_px))


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware, not emulated more slowly than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
