"""The images of a run: real ones with labels, or pictures made from a seed.

Every upload gets a name and a tail of its own (bytes after the end of a JPEG or
PNG, which decoders don't read), so that one that is run twice, lost or mixed up
shows in the job table. Answers to the same picture must all be the same.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from experiments.errors import BadScenario
from experiments.scenario import Images
from experiments.seeds import Dimension, stream

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
SHAPES: Final = 12
JPEG_QUALITY: Final = 90


@dataclass(frozen=True, slots=True)
class Picture:
    """One image; `label` is its class in the folder's list, None where there is none.

    `text_bits` is its size in the published project's measure: every channel of every
    pixel as a decimal number and a separator, 8 bits a character.
    """

    name: str
    body: bytes
    label: int | None
    text_bits: int

    def copy(self, number: int) -> tuple[str, bytes]:
        """Name and bytes of one upload."""
        return f"{number:07d}-{self.name}", self.body + f"\0lookout{number:012d}".encode()


def make(wanted: Images, seed: int) -> list[Picture]:
    """The pictures.

    Raises:
        BadScenario: the folder has none, or its list can't be read.
    """
    if wanted.folder:
        return _from_folder(Path(wanted.folder).expanduser(), wanted.count)
    return [_drawn(number, wanted.size_px, seed) for number in range(wanted.count)]


def text_bits(image: Image.Image) -> int:
    """Bits of an image as decimal text with separators."""
    values = np.asarray(image.convert("RGB"), dtype=np.int64)
    digits = 1 + (values >= 10) + (values >= 100)
    return int((digits + 1).sum()) * 8


def _from_folder(folder: Path, most: int) -> list[Picture]:
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise BadScenario(f"there is no JPEG or PNG in {folder}: give another images.folder")
    labels = _labels(folder / "labels.csv")
    return [_read(path, labels) for path in files[:most]]


def _read(path: Path, labels: dict[str, int]) -> Picture:
    body = path.read_bytes()
    with Image.open(io.BytesIO(body)) as image:
        bits = text_bits(image)
    return Picture(path.name, body, labels.get(path.name), bits)


def _labels(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        if "file" not in names or "class_id" not in names:
            raise BadScenario(f"{path} has the columns {names}: it needs file and class_id")
        return {row["file"]: int(row["class_id"]) for row in reader}


def _drawn(number: int, size_px: int, seed: int) -> Picture:
    """Shapes on a gradient, the same for the same seed."""
    rng = stream(seed, Dimension.IMAGES, number)
    image = Image.linear_gradient("L").resize((size_px, size_px)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(SHAPES):
        left, top, width, height = (int(v) for v in rng.integers(0, size_px, 4))
        red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
        box = (left, top, left + width + 1, top + height + 1)
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=(red, green, blue))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Picture(f"drawn-{number}.jpg", buffer.getvalue(), None, text_bits(image))
