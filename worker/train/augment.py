"""Random changes to a batch of training images, on tensors, all images at once.

Pure: every random number comes from the `torch.Generator` given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from worker.train.settings import Augmentation

# ITU-R BT.601 luma weights, as PIL's conversion to grey.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Per channel: subtract `mean`, divide by `std`, of values in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise float [n, 3, h, w] in place; the result is channels-last."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def augment(
    pixels: torch.Tensor, input_px: int, bounds: Augmentation, rng: torch.Generator
) -> torch.Tensor:
    """Turn uint8 [n, 3, s, s] into changed float32 [n, 3, input_px, input_px] in [0, 1]."""
    images = crop(_shrunk(pixels.float().div_(255), input_px), input_px, bounds, rng)
    if bounds.sharpness:
        sharpen(images, bounds, rng)
    if bounds.colour:
        images = jitter(images, bounds.colour, rng)
    return images


def plain(pixels: torch.Tensor, input_px: int) -> torch.Tensor:
    """Turn uint8 [n, 3, s, s] into float32 [n, 3, input_px, input_px], as deployment does."""
    images = pixels.float().div_(255)
    if images.shape[-1] == input_px:
        return images
    return F.interpolate(
        images, size=(input_px, input_px), mode="bilinear", antialias=True, align_corners=False
    )


def crop(
    images: torch.Tensor, input_px: int, bounds: Augmentation, rng: torch.Generator
) -> torch.Tensor:
    """Cut a random, resized, shifted and perhaps mirrored window out of each image.

    Beyond the border the image is reflected, so a window larger than the image
    shows it smaller.
    """
    count = images.shape[0]
    area = _uniform(count, bounds.area_min, bounds.area_max, rng)
    stretch = (_uniform(count, -0.5, 0.5, rng) * math.log(bounds.aspect_max)).exp()
    height, width = area.sqrt() * stretch, area.sqrt() / stretch
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = width * _signs(count, bounds.flip, rng)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = _offset(width, bounds.shift, rng)
    theta[:, 1, 2] = _offset(height, bounds.shift, rng)
    grid = F.affine_grid(
        theta.to(images.device), [count, 3, input_px, input_px], align_corners=False
    )
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def sharpen(images: torch.Tensor, bounds: Augmentation, rng: torch.Generator) -> None:
    """Blur or sharpen a share of the images, in place, by an unsharp mask.

    Small originals enlarged carry no fine detail; photographs do. Without this
    a model trained on the former meets edges that it has never seen.
    """
    count = images.shape[0]
    chosen = torch.nonzero(torch.rand(count, generator=rng) < bounds.sharpen_share)[:, 0]
    gain = _uniform(len(chosen), -1.0, bounds.sharpness, rng).view(-1, 1, 1, 1)
    picked = images[chosen]
    blurred = F.avg_pool2d(F.pad(picked, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    images[chosen] = picked.add_((picked - blurred) * gain.to(images.device)).clamp_(0, 1)


def jitter(images: torch.Tensor, colour: float, rng: torch.Generator) -> torch.Tensor:
    """Scale brightness, contrast and saturation by independent factors in 1 ± `colour`."""
    count = images.shape[0]
    factors = _uniform(3 * count, 1 - colour, 1 + colour, rng).view(3, count, 1, 1, 1)
    brightness, contrast, saturation = factors.to(images.device).unbind(0)
    luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    grey = (images * luma).sum(1, keepdim=True)
    level = grey.mean((2, 3), keepdim=True)
    # saturation: grey + s (x - grey); then contrast about the mean; then brightness.
    mixed = images * saturation + grey * (1 - saturation)
    return mixed.mul_(contrast).add_(level * (1 - contrast)).mul_(brightness).clamp_(0, 1)


def cutmix(
    images: torch.Tensor, share: float, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste a box of its neighbour into a `share` of the images (CutMix, Yun et al. 2019).

    The neighbour of image i is image i - 1, the last one for the first. A box covers up to the
    whole image: the square root of a number drawn evenly from [0, 1] is its side, what lies
    beyond the border is cut off. Returns the images, float [n, 3, h, w], and what part of each
    is still its own, float32 [n].
    """
    count, _, height, width = images.shape
    chosen = torch.rand(count, generator=rng) < share
    half = torch.rand(count, generator=rng).sqrt() / 2 * chosen
    rows = _spans(half, height, rng)
    columns = _spans(half, width, rng)
    box = rows[:, :, None] & columns[:, None, :]
    own = 1 - box.float().mean((1, 2))
    mixed = torch.where(box[:, None].to(images.device), images.roll(1, 0), images)
    return mixed, own.to(images.device)


def _spans(half: torch.Tensor, size: int, rng: torch.Generator) -> torch.Tensor:
    """Whether each of `size` cells lies within `half` of a random centre; bool [n, size]."""
    centre = torch.rand(len(half), 1, generator=rng)
    cells = (torch.arange(size) + 0.5) / size
    return (cells - centre).abs() < half[:, None]


def _shrunk(images: torch.Tensor, input_px: int) -> torch.Tensor:
    """Halve images far larger than the input first: `grid_sample` does not antialias."""
    while images.shape[-1] >= 2 * input_px:
        images = F.avg_pool2d(images, 2)
    return images


def _uniform(count: int, low: float, high: float, rng: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=rng) * (high - low) + low


def _signs(count: int, flip: bool, rng: torch.Generator) -> torch.Tensor:
    if not flip:
        return torch.ones(count)
    return torch.randint(0, 2, (count,), generator=rng).float() * 2 - 1


def _offset(side: torch.Tensor, shift: float, rng: torch.Generator) -> torch.Tensor:
    room = (1 - side).abs() + 2 * shift
    return _uniform(len(side), -1.0, 1.0, rng) * room
