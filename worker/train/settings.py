"""Everything a training run was told, in one frozen value.

It is stored in the run folder, so that a resumed run continues with the same
settings unless a flag changes them.
"""

from __future__ import annotations

import msgspec

from wire.errors import EnvironmentFault


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Training at `input_px` until the run's `until` (0 < until <= 1) part is done."""

    input_px: int
    until: float


class Augmentation(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the random changes made to each training image.

    `area_min` and `area_max` bound the part of the image that the crop covers;
    above 1 the image is shrunk and its border mirrored. `shift` moves the crop
    by up to that part of the side. `colour` scales brightness, contrast and
    saturation by up to 1 ± that. `sharpness` is the largest unsharp-mask gain
    (blur reaches -1); it is drawn for `sharpen_share` of the images. `cutmix`
    is the share of images that get a box of another one.
    """

    area_min: float = 0.5
    area_max: float = 1.2
    aspect_max: float = 1.25
    shift: float = 0.06
    flip: bool = True
    colour: float = 0.25
    sharpness: float = 2.5
    sharpen_share: float = 0.3
    cutmix: float = 0.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One training run.

    The run lasts `epochs`, or, where `budget_s` is above 0, that many seconds
    of training time (summed over interruptions), with the schedule fitted to
    it. `learning_rate` is the peak of a linear warm-up over the `warmup` part
    of the run and a cosine to zero; with the optimizer `muon`, `muon_rate` is
    that of the convolutions. `ema_decay` is per step. `patience_epochs` 0 never
    ends early; `threads` 0 leaves the number to torch. `teacher` is the id of
    the model that is imitated, or empty; its answers, softened by `temperature`,
    are the `teacher_weight` part of the loss.
    """

    architecture: str = "googlenet"
    phases: tuple[Phase, ...] = (Phase(input_px=224, until=1.0),)
    epochs: int = 30
    budget_s: float = 0.0
    batch_images: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    muon_rate: float = 0.05
    warmup: float = 0.08
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    ema_decay: float = 0.998
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    val_share: float = 0.1
    patience_epochs: int = 10
    seed: int = 0
    threads: int = 0
    device: str = "auto"
    augmentation: Augmentation = Augmentation()
    teacher: str = ""
    teacher_weight: float = 0.7
    temperature: float = 2.0

    def input_px(self, progress: float) -> int:
        """Side of the square input after the `progress` part of the run."""
        for phase in self.phases:
            if progress < phase.until:
                return phase.input_px
        return self.phases[-1].input_px

    @property
    def final_px(self) -> int:
        """Side of the square input at the end of training, and in the card."""
        return self.phases[-1].input_px


def parse_phases(text: str) -> tuple[Phase, ...]:
    """Read `64:0.7,96:1.0` (or just `96`) as phases of rising `until`, ending at 1.

    Raises:
        EnvironmentFault: a size or share is out of range, or out of order.
    """
    phases = []
    for part in text.split(","):
        size, _, until = part.partition(":")
        try:
            phases.append(Phase(input_px=int(size), until=float(until or 1.0)))
        except ValueError:
            raise _bad_sizes(text) from None
    ends = [phase.until for phase in phases]
    if ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1.0:
        raise _bad_sizes(text)
    if not all(16 <= phase.input_px <= 1024 for phase in phases):
        raise _bad_sizes(text)
    return tuple(phases)


def _bad_sizes(text: str) -> EnvironmentFault:
    return EnvironmentFault(
        "bad_sizes",
        f"--sizes {text!r} is not SIZE[:UNTIL],... with 16 <= SIZE <= 1024 and UNTIL rising to 1.0"
        " (example: 64:0.7,96:1.0)",
    )
