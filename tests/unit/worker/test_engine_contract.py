"""What every engine promises; an engine joins by a line in `ENGINES`."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fakes.weights import random_weights
from wire.card import Card
from wire.errors import EnvironmentFault, LocalFault
from worker.engine import Engine, EngineConfig, make_engine
from worker.models import card_for_torchvision, load_model

ENGINES = ["torch"]
TOLERANCE = {"torch": 1e-4}
"""How far logits may lie from a direct call in float32."""
ARCHITECTURES = ["squeezenet1_1", "mobilenet_v2", "googlenet", "resnet50"]
BATCH_MAX = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Card, Path]]:
    folder = tmp_path_factory.mktemp("weights")
    made = {}
    for name in ARCHITECTURES:
        path = random_weights(name, folder / f"{name}.pth")
        made[name] = (card_for_torchvision(name, path), path)
    return made


def loaded(engine: str, model: tuple[Card, Path]) -> Engine:
    made = make_engine(engine, EngineConfig(threads=2, batch_max=BATCH_MAX))
    made.load(*model)
    return made


def pixels(n: int, px: int = 224) -> np.ndarray:
    rng = np.random.default_rng(11)
    return rng.standard_normal((n, 3, px, px), dtype=np.float32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_a_direct_call(
    engine: str, architecture: str, models: dict[str, tuple[Card, Path]]
) -> None:
    batch = pixels(2, models[architecture][0].preprocessing.crop_px)
    with torch.inference_mode():
        expected = load_model(*models[architecture])(torch.from_numpy(batch)).numpy()
    found = loaded(engine, models[architecture]).infer(batch)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[engine])


@pytest.mark.parametrize("engine", ENGINES)
def test_shapes_types_and_every_batch_size(
    engine: str, models: dict[str, tuple[Card, Path]]
) -> None:
    one = loaded(engine, models["squeezenet1_1"])
    one.warm_up()
    batch = pixels(BATCH_MAX)
    whole = one.infer(batch)
    assert whole.dtype == np.float32
    for n in range(1, BATCH_MAX + 1):
        part = one.infer(batch[:n])
        assert part.shape == (n, 1000)
        np.testing.assert_allclose(part, whole[:n], atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_leaves_its_input_alone(engine: str, models: dict[str, tuple[Card, Path]]) -> None:
    batch = pixels(1)
    before = batch.copy()
    loaded(engine, models["squeezenet1_1"]).infer(batch)
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize("engine", ENGINES)
def test_may_be_loaded_on_one_thread_and_used_on_another(
    engine: str, models: dict[str, tuple[Card, Path]]
) -> None:
    one = loaded(engine, models["squeezenet1_1"])
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(one.infer(pixels(1))))
    thread.start()
    thread.join(60.0)
    np.testing.assert_allclose(found[0], one.infer(pixels(1)), atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_models_live_side_by_side(engine: str, models: dict[str, tuple[Card, Path]]) -> None:
    first = loaded(engine, models["squeezenet1_1"])
    before = first.infer(pixels(1))
    loaded(engine, models["mobilenet_v2"]).infer(pixels(1))
    np.testing.assert_array_equal(first.infer(pixels(1)), before)


@pytest.mark.parametrize("engine", ENGINES)
def test_infer_before_load_is_our_bug(engine: str) -> None:
    with pytest.raises(LocalFault):
        make_engine(engine, EngineConfig(threads=1, batch_max=1)).infer(pixels(1))


@pytest.mark.parametrize("engine", ENGINES)
def test_says_what_it_is_in_one_short_line(engine: str) -> None:
    text = make_engine(engine, EngineConfig(threads=1, batch_max=1)).describe()
    assert text.startswith(engine)
    assert "\n" not in text
    assert len(text) <= 128


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EnvironmentFault, match="'steam'"):
        make_engine("steam", EngineConfig(threads=1, batch_max=1))
