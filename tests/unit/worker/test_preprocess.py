"""Preprocessing equals torchvision's own preset, to the bit where the image is made whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.shared import make_image
from wire.card import Preprocessing
from wire.errors import EnvironmentFault
from worker.preprocess import Preprocessor, resized_size
from worker.vision import import_torchvision

STEP = 1.0 / 255.0 / 0.2
"""One step of an 8-bit channel, after normalisation with the smallest usual std."""


def by_torchvision(image: Image.Image, recipe: Preprocessing) -> np.ndarray:
    import_torchvision()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(
        crop_size=recipe.crop_px,
        resize_size=recipe.resize_px,
        mean=recipe.mean,
        std=recipe.std,
        interpolation=InterpolationMode(recipe.interpolation),
    )
    found: np.ndarray = preset(image).numpy()
    return found


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (256, 256), (257, 255), (64, 64), (30, 500), (1, 1), (3, 7)]
)
@pytest.mark.parametrize(
    ("resize_px", "crop_px", "interpolation"),
    [(256, 224, "bilinear"), (232, 224, "bicubic"), (32, 32, "nearest"), (64, 96, "bilinear")],
)
def test_equals_torchvision(
    size: tuple[int, int], resize_px: int, crop_px: int, interpolation: str
) -> None:
    recipe = Preprocessing(resize_px=resize_px, crop_px=crop_px, interpolation=interpolation)
    image = make_image(3, size)
    found = Preprocessor(recipe)(image)
    assert found.dtype == np.float32
    assert found.shape == (3, crop_px, crop_px)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, by_torchvision(image, recipe))


def test_normalises_with_the_cards_own_numbers() -> None:
    recipe = Preprocessing(resize_px=8, crop_px=8, mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 2.0))
    found = Preprocessor(recipe)(Image.new("RGB", (8, 8), (255, 51, 0)))
    np.testing.assert_allclose(found[:, 0, 0], [1.0, 0.2, -0.5], rtol=1e-6)


@pytest.mark.parametrize("size", [(60, 4001), (4001, 60), (300, 30_000)])
def test_long_strips_equal_torchvision_to_one_step(size: tuple[int, int]) -> None:
    recipe = Preprocessing(resize_px=256, crop_px=224)
    image = make_image(5, size)
    found, expected = Preprocessor(recipe)(image), by_torchvision(image, recipe)
    assert np.abs(found - expected).max() <= STEP
    assert (np.abs(found - expected) > 1e-6).mean() < 0.01


def test_an_endless_strip_is_never_resized_whole() -> None:
    recipe = Preprocessing(resize_px=256, crop_px=224)
    assert resized_size((1, 60_000), 256) == (256, 15_360_000)
    assert Preprocessor(recipe)(Image.new("RGB", (1, 60_000), (9, 9, 9))).shape == (3, 224, 224)
    assert Preprocessor(recipe)(Image.new("RGB", (60_000, 1))).shape == (3, 224, 224)


def test_an_endless_strip_that_must_be_padded_is_bounded_too() -> None:
    recipe = Preprocessing(resize_px=224, crop_px=256)
    assert Preprocessor(recipe)(Image.new("RGB", (1, 60_000))).shape == (3, 256, 256)


def test_an_unknown_interpolation_is_named() -> None:
    with pytest.raises(EnvironmentFault, match="'cubist'"):
        Preprocessor(Preprocessing(resize_px=8, crop_px=8, interpolation="cubist"))
