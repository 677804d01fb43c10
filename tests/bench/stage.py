"""What rows of one benchmark share: a model with weights, images, and the caches of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tests.fakes.weights import lively_weights
from tests.shared import IMAGENET100, make_jpeg, shared_file
from worker.compiled import MODEL, CompiledCache, ingredients
from worker.convert import convert_in_child
from worker.models import card_for_torchvision, write_card
from worker.openvino_engine import FOLDER

IMAGES = 32


@dataclass
class Stage:
    """What every row shares: a folder with card, weights, images; caches; seconds a row."""

    folder: Path
    seconds: float
    bodies: list[bytes] = field(default_factory=list)
    precision: str = ""
    """What `auto` took, and so what the peers get; known after the first bare measurement."""

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def graph(self) -> Path:
        """Converted once; found again by every engine of this run."""
        card = card_for_torchvision("googlenet", self.folder / "weights.pth")
        place = CompiledCache(self.cache / FOLDER).obtain(
            ingredients(card, "fp32"),
            lambda folder: convert_in_child(card, self.folder / "weights.pth", folder),
        )
        return place / MODEL

    def prepare(self) -> None:
        """Write weights, card and images, and convert the model, unless they are there."""
        if not (self.folder / "ready").is_file():
            self._prepare()
            assert self.graph.is_file()
            (self.folder / "ready").touch()
        self.bodies = [path.read_bytes() for path in sorted((self.folder / "images").iterdir())]

    def _prepare(self) -> None:
        lively_weights("googlenet", self.folder / "weights.pth")
        card = card_for_torchvision("googlenet", self.folder / "weights.pth")
        write_card(card, self.folder / "card.json")
        (self.folder / "images").mkdir(exist_ok=True)
        for number, body in enumerate(photographs()):
            (self.folder / "images" / f"{number:03}.jpg").write_bytes(body)


def photographs() -> list[bytes]:
    """JPEGs of about 108 kB: real photographs where they are, drawn ones elsewhere."""
    folder = shared_file(IMAGENET100)
    if folder is None:
        return [make_jpeg(seed, (1600, 1200), 94) for seed in range(IMAGES)]
    found = [path for path in sorted(folder.glob("*.JPEG")) if Image.open(path).mode == "RGB"]
    found.sort(key=lambda path: abs(path.stat().st_size - 108_000))
    return [path.read_bytes() for path in found[:IMAGES]]
