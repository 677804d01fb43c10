"""What tests of every package share: real data where it is, generated images, waiting.

Real data lies outside the repository, in the folder that `LOOKOUT_SHARED` names
or in `../shared`. A test that needs it is skipped with the reason where it is
absent, and fails instead where `LOOKOUT_REQUIRE` lists the feature: on a machine
that is known to have it, a skip would hide a test that no longer runs.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import pytest
from PIL import Image, ImageDraw

REPOSITORY: Final = Path(__file__).resolve().parent.parent
IMAGENET100: Final = "data/imagenet100"
CIFAR10_TEST: Final = "data/cifar10/test.tar"
CIFAR10_TRAIN: Final = "data/cifar10/train.tar"
SQUEEZENET: Final = "weights/squeezenet1_1-imagenet-fp16.pth"
FEATURES: Final = frozenset({"browser", "commands", "javascript", "netns", "shared", "uml"})
_POLL_S: Final = 0.02


def required_features() -> frozenset[str]:
    """Features that this machine must have, from `LOOKOUT_REQUIRE=browser,shared`."""
    wanted = frozenset(filter(None, os.environ.get("LOOKOUT_REQUIRE", "").split(",")))
    if unknown := wanted - FEATURES:
        raise ValueError(f"LOOKOUT_REQUIRE names {sorted(unknown)}; known: {sorted(FEATURES)}")
    return wanted


def skip_without(feature: str, reason: str) -> NoReturn:
    """End the test: a skip, or a failure where `feature` is required."""
    assert feature in FEATURES
    if feature in required_features():
        pytest.fail(f"LOOKOUT_REQUIRE lists {feature}, but {reason}", pytrace=False)
    pytest.skip(reason)


def shared_folder() -> Path:
    """Where the data outside the repository should be; it may not exist."""
    named = os.environ.get("LOOKOUT_SHARED")
    return Path(named) if named else REPOSITORY.parent / "shared"


def shared_file(relative: str) -> Path | None:
    """A file or folder of the shared data, None where it is absent."""
    path = shared_folder() / relative
    return path if path.exists() else None


def need_shared(relative: str) -> Path:
    """A file or folder of the shared data; the test ends here without it."""
    path = shared_file(relative)
    if path is None:
        folder = shared_folder()
        skip_without("shared", f"there is no {folder / relative} (set LOOKOUT_SHARED)")
    return path


def need_chromium() -> str:
    """Path of a Chromium; the test ends here without one."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    skip_without("browser", "there is no chromium on the PATH (apt-get install chromium)")


def make_image(seed: int, size: tuple[int, int] = (224, 224)) -> Image.Image:
    """A picture of overlapping shapes on a gradient, the same for the same arguments."""
    rng = random.Random(seed)
    width, height = size
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(width), rng.randrange(height)
        box = (x, y, x + rng.randint(1, width), y + rng.randint(1, height))
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        rng.choice((draw.ellipse, draw.rectangle))(box, fill=colour)
    return image


def make_jpeg(seed: int, size: tuple[int, int] = (224, 224), quality: int = 90) -> bytes:
    """`make_image` as a JPEG file's bytes."""
    buffer = io.BytesIO()
    make_image(seed, size).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def wait_until(predicate: Callable[[], object], timeout_s: float, what: str = "") -> None:
    """Wait until `predicate()` is true; for state of other processes, which can't call us.

    Inside one process use its own signal (an event, a condition, a future) instead.

    Raises:
        AssertionError: it is not true within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s} s for {what or predicate}")
        time.sleep(_POLL_S)
