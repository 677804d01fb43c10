"""What rows of one benchmark share: a model with weights, images, and the caches of all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import msgspec
from PIL import Image

from tests.fakes.weights import lively_weights
from tests.shared import CIFAR10_TRAIN, IMAGENET100, REPOSITORY, make_jpeg, shared_file
from wire.card import Card
from worker import machine
from worker.compiled import MODEL, CompiledCache, ingredients
from worker.convert import as_openvino_converts, convert_in_child
from worker.engine import AUTO
from worker.int8 import quantise
from worker.models import card_for_torchvision, write_card
from worker.openvino_engine import FOLDER
from worker.openvino_import import import_openvino

IMAGES = 32
SAMPLES = 600
INT8_PX = 128
BUNDLED = REPOSITORY / "master" / "bundled" / "googlenet-cifar10.safetensors"


@dataclass
class Stage:
    """What every row shares: a folder with card, weights, images; caches; seconds a row.

    The network is GoogLeNet at 224 px with seeded random weights, in what `--engine auto` takes.
    """

    folder: Path
    seconds: float
    bodies: list[bytes] = field(default_factory=list)
    precision: str = ""
    """What `auto` took, and so what the peers get; known after the first bare measurement."""

    engine: ClassVar[str] = AUTO
    wanted_precision: ClassVar[str] = AUTO

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.pth"

    @property
    def samples(self) -> Path | None:
        """Images to quantise with."""
        return None

    @property
    def card(self) -> Card:
        return msgspec.json.decode((self.folder / "card.json").read_bytes(), type=Card)

    @property
    def graph(self) -> Path:
        """Converted once; found again by every engine of this run."""
        precision = "int8" if self.samples else "fp32"
        place = CompiledCache(self.cache / FOLDER).obtain(
            ingredients(self.card, precision, self.samples),
            lambda folder: convert_in_child(self.card, self.weights, folder, samples=self.samples),
        )
        return place / MODEL

    @property
    def engine_flags(self) -> tuple[str, ...]:
        """How a worker is told of it."""
        return (f"--engine={self.engine}",)

    @property
    def plain_graph(self) -> Path:
        """The graph as OpenVINO converts it (and NNCF quantises it), for whoever has no Lookout."""
        place = self.folder / f"plain-{versions()}" / MODEL
        if not place.is_file():
            command = [sys.executable, "-m", "tests.bench.stage", type(self).__name__]
            command += [str(self.folder), str(place)]
            subprocess.run(command, cwd=REPOSITORY, check=True)
        return place

    def make_plain_graph(self, place: Path) -> None:
        """Write it; imports torch, so in a process of its own."""
        model = as_openvino_converts(self.card, self.weights)
        if self.samples is not None:
            model = quantise(model, self.card, self.samples)
        import_openvino().save_model(model, place, compress_to_fp16=False)

    def prepare(self) -> None:
        """Write weights, card and images, and convert the model, unless they are there."""
        if not (self.folder / "ready").is_file():
            (self.folder / "images").mkdir(parents=True, exist_ok=True)
            for number, body in enumerate(photographs()):
                (self.folder / "images" / f"{number:03}.jpg").write_bytes(body)
            self._prepare_model()
            assert self.graph.is_file()
            (self.folder / "ready").touch()
        self.bodies = [path.read_bytes() for path in sorted((self.folder / "images").iterdir())]

    def _prepare_model(self) -> None:
        lively_weights("googlenet", self.weights)
        write_card(card_for_torchvision("googlenet", self.weights), self.folder / "card.json")


class Int8Stage(Stage):
    """The bundled GoogLeNet at `INT8_PX`, quantised with images of its training.

    Random weights decide nothing clearly: of their best classes int8 keeps 84 %, and
    Lookout serves no int8 that keeps less than 99 %. The bundled one keeps 99.0 % here, and 98.7 %
    at its own 96 px and at 224 px.
    """

    engine = "openvino"
    wanted_precision = "int8"

    @property
    def weights(self) -> Path:
        return self.folder / BUNDLED.name

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def engine_flags(self) -> tuple[str, ...]:
        return (
            "--engine=openvino",
            "--precision=int8",
            f"--calibration-images={self.samples}",
        )

    def _prepare_model(self) -> None:
        shutil.copy(BUNDLED, self.weights)
        card = msgspec.json.decode(BUNDLED.with_suffix(".json").read_bytes(), type=Card)
        recipe = msgspec.structs.replace(card.preprocessing, resize_px=INT8_PX, crop_px=INT8_PX)
        card = msgspec.structs.replace(card, preprocessing=recipe)
        for path in (self.weights.with_suffix(".json"), self.folder / "card.json"):
            write_card(card, path)
        archive = shared_file(CIFAR10_TRAIN)
        assert archive is not None, "the caller has looked"
        self.samples.mkdir(exist_ok=True)
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.isfile()]
            for member in members[:: max(1, len(members) // SAMPLES)]:
                file = tar.extractfile(member)
                assert file is not None
                (self.samples / member.name.replace("/", "-")).write_bytes(file.read())


def versions() -> str:
    """What decides how a graph is converted."""
    return "-".join(machine.version_of(name) for name in ("openvino", "torch", "nncf"))


def photographs() -> list[bytes]:
    """JPEGs of about 108 kB: real photographs where they are, drawn ones elsewhere."""
    folder = shared_file(IMAGENET100)
    if folder is None:
        return [make_jpeg(seed, (1600, 1200), 94) for seed in range(IMAGES)]
    found = [path for path in sorted(folder.glob("*.JPEG")) if Image.open(path).mode == "RGB"]
    found.sort(key=lambda path: abs(path.stat().st_size - 108_000))
    return [path.read_bytes() for path in found[:IMAGES]]


STAGES = {stage.__name__: stage for stage in (Stage, Int8Stage)}

if __name__ == "__main__":
    _kind, _folder, _place = sys.argv[1:]
    STAGES[_kind](Path(_folder), 0.0).make_plain_graph(Path(_place))
