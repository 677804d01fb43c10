"""int8 is made from the user's own images, and kept only if the answers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.weights import lively_weights
from tests.shared import make_jpeg
from wire.card import Card
from wire.errors import EnvironmentFault
from worker import int8
from worker.convert import convert
from worker.decode import DecodeLimits, Decoder
from worker.engine import EngineConfig, Precision, make_engine
from worker.models import card_for_torchvision
from worker.preprocess import Preprocessor

SMALL = "squeezenet1_1"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Card, Path]:
    path = lively_weights(SMALL, tmp_path_factory.mktemp("weights") / "s.pth")
    return card_for_torchvision(SMALL, path), path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for seed in range(int8.IMAGES_MIN):
        (folder / f"{seed:03}.jpg").write_bytes(make_jpeg(seed, (256, 256)))
    (folder / "labels.csv").write_text("no image\n")
    return folder


def test_int8_whose_answers_stay_is_served(
    model: tuple[Card, Path], samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []

    def stays(exact: np.ndarray, found: np.ndarray) -> float:
        judged.append(len(found))
        return 0.99

    # Weights that mean nothing decide nothing clearly; what is judged here is the mechanism.
    monkeypatch.setattr(int8, "same_best", stays)
    engines = {
        precision: make_engine(
            "openvino",
            EngineConfig(tmp_path, 1, 2, precision, samples=samples, in_child=False),
        )
        for precision in (Precision.FP32, Precision.INT8)
    }
    decoder, prepare = Decoder(DecodeLimits()), Preprocessor(model[0].preprocessing)
    image = prepare.pixels(decoder.decode(make_jpeg(1000, (256, 256))))[None]
    logits: dict[Precision, Any] = {}
    for precision, engine in engines.items():
        engine.load(*model)
        logits[precision] = engine.infer(image)[0]
    assert judged == [int8.IMAGES_MIN // 2], "judged by images that it was not measured with"
    assert " int8 " in engines[Precision.INT8].describe()
    exact, found = logits[Precision.FP32], logits[Precision.INT8]
    assert np.corrcoef(exact, found)[0, 1] > 0.9
    assert np.abs(exact - found).max() > 0


def test_int8_that_changes_answers_is_refused(
    model: tuple[Card, Path], samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "same_best", lambda exact, found: 0.989)
    with pytest.raises(EnvironmentFault, match=r"98\.9%.*--precision bf16") as caught:
        int8.quantise(convert(*model), model[0], samples)
    assert caught.value.code == "int8_disagrees"


def test_too_few_images_are_refused_before_anything_is_measured(
    model: tuple[Card, Path], tmp_path: Path
) -> None:
    (tmp_path / "one.jpg").write_bytes(make_jpeg(1))
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(EnvironmentFault, match="has 1 images") as caught:
        int8.quantise(object(), model[0], tmp_path)
    assert caught.value.code == "samples_missing"
