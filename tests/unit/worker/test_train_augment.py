"""Augmentation: bounds, identity where nothing is to change, and the same draws twice."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from worker.train.augment import Normalisation, augment, crop, cutmix, jitter, plain, sharpen
from worker.train.settings import Augmentation

NOTHING = Augmentation(
    area_min=1.0, area_max=1.0, aspect_max=1.0, shift=0.0, flip=False, colour=0.0, sharpness=0.0
)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int = 6, side: int = 20) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=draw(9))


def test_without_changes_it_is_what_deployment_does() -> None:
    torch.testing.assert_close(augment(pixels(), 33, NOTHING, draw()), plain(pixels(), 33))


@pytest.mark.parametrize("side", [20, 33, 150])
def test_values_stay_in_range_and_have_the_size(side: int) -> None:
    images = augment(pixels(side=side), 33, Augmentation(), draw())
    assert images.shape == (6, 3, 33, 33)
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_same_generator_draws_the_same_and_another_does_not() -> None:
    first = augment(pixels(), 24, Augmentation(), draw(1))
    assert torch.equal(first, augment(pixels(), 24, Augmentation(), draw(1)))
    assert not torch.equal(first, augment(pixels(), 24, Augmentation(), draw(2)))


def test_about_half_of_the_images_are_mirrored() -> None:
    images = pixels(200).float() / 255
    flipping = Augmentation(area_min=1.0, area_max=1.0, aspect_max=1.0, shift=0.0)
    cut = crop(images, 20, flipping, draw())
    same = (cut - images).abs().amax((1, 2, 3)) < 1e-3
    mirrored = (cut - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-3
    assert bool((same ^ mirrored).all())
    assert 70 < int(mirrored.sum()) < 130


def test_a_window_larger_than_the_image_shows_it_smaller() -> None:
    centre = torch.zeros(1, 3, 40, 40)
    centre[..., 10:30, 10:30] = 1.0
    larger = Augmentation(area_min=4.0, area_max=4.0, aspect_max=1.0, shift=-0.5, flip=False)
    assert crop(centre, 40, larger, draw()).gt(0.5).sum() == pytest.approx(3 * 10 * 10 * 4, rel=0.2)


def test_windows_stay_inside_but_for_the_shift() -> None:
    """Position is painted into the image; the corners of each window tell where it lay."""
    ramp = torch.linspace(-1, 1, 201).expand(1, 1, 201, 201).expand(300, 3, -1, -1).contiguous()
    bounds = Augmentation(area_min=0.25, area_max=0.25, aspect_max=1.0, shift=0.0, flip=False)
    windows = crop(ramp, 51, bounds, draw())[:, 0, 25]
    width = windows[:, -1] - windows[:, 0]
    assert width.min() > 0.95
    assert width.max() < 1.0
    assert windows.min() < -0.95
    assert windows.max() > 0.95


def test_sharpening_moves_away_from_the_blurred_image() -> None:
    images = plain(pixels(), 32)
    before, bounds = images.clone(), Augmentation(sharpen_share=1.0)
    sharpen(images, bounds, draw(4))
    blurred = F.avg_pool2d(F.pad(before, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    gains = torch.rand(6, generator=_after(6, 4)) * 3.5 - 1
    expected = before + (before - blurred) * gains.view(-1, 1, 1, 1)
    torch.testing.assert_close(images, expected.clamp(0, 1))


def _after(count: int, seed: int) -> torch.Generator:
    rng = draw(seed)
    torch.rand(count, generator=rng)
    return rng


def test_no_share_sharpens_nothing() -> None:
    images = plain(pixels(), 32)
    before = images.clone()
    sharpen(images, Augmentation(sharpen_share=0.0), draw())
    assert torch.equal(images, before)


def test_colour_zero_changes_nothing_and_grey_stays_grey() -> None:
    images = plain(pixels(), 32)
    torch.testing.assert_close(jitter(images, 0.0, draw()), images)
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    changed = jitter(grey, 0.4, draw())
    assert (changed - changed.mean(1, keepdim=True)).abs().max() < 1e-5
    assert (changed - grey).abs().max() > 0.05


def test_normalisation_is_per_channel() -> None:
    normalise = Normalisation(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    result = normalise.apply(torch.full((1, 3, 2, 2), 0.5))
    assert result[0, :, 0, 0].tolist() == [0.5, 0.0, -2.0]


def grey_levels(count: int, side: int = 40) -> torch.Tensor:
    """Image i is all i."""
    return torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, side, side).clone()


def test_cutmix_pastes_one_box_of_the_neighbour_and_says_how_much_is_left() -> None:
    images = grey_levels(300)
    mixed, own = cutmix(images, 1.0, draw())
    mine = mixed == images
    theirs = mixed == images.roll(1, 0)
    assert bool((mine ^ theirs).all())
    torch.testing.assert_close(mine[:, 0].float().mean((1, 2)), own)
    for box in theirs[:, 0]:
        rows, columns = box.any(1), box.any(0)
        assert box.sum() == rows.sum() * columns.sum(), "not a rectangle"
    # Without a border a box would cover half on average; what sticks out is cut off.
    assert 0.6 < own.mean() < 0.75
    assert own.min() < 0.2


def test_cutmix_leaves_the_rest_alone() -> None:
    images = grey_levels(400)
    untouched, own = cutmix(images, 0.0, draw())
    assert torch.equal(untouched, images)
    assert torch.equal(own, torch.ones(400))
    assert 80 < int((cutmix(images, 0.25, draw())[1] < 1).sum()) < 120
