"""Tiny data sets and orders for the tests of training: real runs of a real small network."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
from PIL import Image, ImageDraw
from rich.console import Console

from worker.train.display import Display
from worker.train.session import Order
from worker.train.settings import Augmentation, Phase, Settings

ARCHITECTURE = "shufflenet_v2_x0_5"
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (210, 50, 40)}
SETTINGS = Settings(
    architecture=ARCHITECTURE,
    phases=(Phase(input_px=32, until=0.5), Phase(input_px=48, until=1.0)),
    epochs=4,
    batch_images=8,
    learning_rate=0.05,
    val_share=0.25,
    seed=5,
    threads=1,
    augmentation=Augmentation(colour=0.1),
)


def make_dataset(root: Path, images: int = 12, size: tuple[int, int] = (48, 40)) -> Path:
    """A folder per colour, of that colour's noisy squares."""
    rng = random.Random(3)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(images):
            image = Image.new("RGB", size, (rng.randrange(90),) * 3)
            left, top = rng.randrange(10), rng.randrange(10)
            ImageDraw.Draw(image).rectangle((left, top, left + 28, top + 26), fill=colour)
            image.save(root / name / f"{number:03d}.png")
    return root


def make_order(directory: Path, run: Path, **changes: object) -> Order:
    """An order of `SETTINGS`, changed."""
    return Order(
        directory=directory,
        val=None,
        test=None,
        run=run,
        weights=None,
        teacher=None,
        out=run / "tiny",
        half=False,
        card_fields={"licence": "test"},
        settings=msgspec.structs.replace(SETTINGS, **changes),
    )


def silent() -> Display:
    """A display that nobody sees, whose clock stands still."""
    return Display(Console(quiet=True), lambda: 0.0)
