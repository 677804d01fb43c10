"""What every engine promises; an engine joins by a line in `worker.engine.ENGINES`.

Each case runs for every engine in every precision that this machine has. int8 is
held by `test_int8.py`: it needs images to be calibrated with.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from tests.fakes.weights import lively_weights
from tests.shared import IMAGENET100, SQUEEZENET, need_shared
from wire.card import Card
from wire.errors import EnvironmentFault, LocalFault
from worker.agreement import AGREEMENT_MIN, agreement, same_best
from worker.decode import DecodeLimits, Decoder
from worker.engine import ENGINES, Engine, EngineConfig, Precision, capabilities, make_engine
from worker.machine import has_bf16
from worker.models import card_for_torchvision, load_model
from worker.preprocess import Preprocessor

ARCHITECTURES = ["squeezenet1_1", "mobilenet_v2", "googlenet", "resnet50"]
SMALL = "squeezenet1_1"
BATCH_MAX = 3
PARITY = 1e-4
"""How far logits in fp32 may lie from a direct call of torchvision's model."""
KINDS = [
    (name, precision)
    for name in ENGINES
    for precision in capabilities(name)
    if precision is not Precision.INT8
]
EXACT = [kind for kind in KINDS if kind[1] is Precision.FP32]


@dataclass
class Shop:
    """Weights, and one cache for the whole module: what is converted or loaded once stays.

    Cases share loaded engines, as jobs do. Whoever closes one makes it for itself (`fresh`).
    """

    folder: Path
    models: dict[str, tuple[Card, Path]] = field(default_factory=dict)
    directs: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    engines: dict[tuple[tuple[str, Precision], str, int], Engine] = field(default_factory=dict)

    def model(self, architecture: str) -> tuple[Card, Path]:
        if architecture not in self.models:
            path = lively_weights(architecture, self.folder / f"{architecture}.pth")
            self.models[architecture] = (card_for_torchvision(architecture, path), path)
        return self.models[architecture]

    def direct(self, architecture: str) -> tuple[np.ndarray, np.ndarray]:
        """Pixels, and their logits by torchvision's own model; computed once."""
        if architecture not in self.directs:
            card, weights = self.model(architecture)
            batch = pixels(2, card.preprocessing.crop_px)
            self.directs[architecture] = batch, directly(card, weights, batch)
        return self.directs[architecture]

    def make(self, kind: tuple[str, Precision], *, lanes: int = 1) -> Engine:
        config = EngineConfig(
            # Torch is here anyway; that a child converts is held by `test_selection.py`.
            self.folder / "cache",
            1,
            BATCH_MAX,
            kind[1],
            lanes,
            in_child=False,
        )
        return make_engine(kind[0], config)

    def loaded(
        self, kind: tuple[str, Precision], architecture: str = SMALL, *, lanes: int = 1
    ) -> Engine:
        if (kind, architecture, lanes) not in self.engines:
            self.engines[kind, architecture, lanes] = self.fresh(kind, architecture, lanes=lanes)
        return self.engines[kind, architecture, lanes]

    def fresh(
        self, kind: tuple[str, Precision], architecture: str = SMALL, *, lanes: int = 1
    ) -> Engine:
        engine = self.make(kind, lanes=lanes)
        engine.load(*self.model(architecture))
        return engine


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    yield Shop(tmp_path_factory.mktemp("shop"))


def pixels(n: int, px: int = 224) -> np.ndarray:
    return np.random.default_rng(11).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


def directly(card: Card, weights: Path, batch: np.ndarray) -> np.ndarray:
    """Logits of torchvision's own model, fed as torchvision's own preset would."""
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (card.preprocessing.mean, card.preprocessing.std)
    )
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().float().div(255.0)
    with torch.inference_mode():
        logits: np.ndarray = load_model(card, weights)((images - mean) / std).numpy()
    return logits


def test_every_engine_is_exact_in_its_first_precision() -> None:
    assert {name: capabilities(name)[0] for name in ENGINES} == dict.fromkeys(ENGINES, "fp32")
    assert has_bf16() == any(kind[1] is Precision.BF16 for kind in KINDS)


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fp32_logits_equal_a_direct_call(
    kind: tuple[str, Precision], architecture: str, shop: Shop
) -> None:
    batch, expected = shop.direct(architecture)
    found = shop.loaded(kind, architecture).infer(batch)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=PARITY)


@pytest.fixture(scope="module")
def photographs() -> tuple[Card, Path, np.ndarray, np.ndarray]:
    """A real checkpoint; pixels and exact logits of 100 photographs."""
    weights, folder = need_shared(SQUEEZENET), need_shared(IMAGENET100)
    card = card_for_torchvision(SMALL, weights)
    decoder, prepare = Decoder(DecodeLimits()), Preprocessor(card.preprocessing)
    uploads = [path.read_bytes() for path in sorted(folder.glob("*.JPEG"))]
    images = np.stack([prepare.pixels(decoder.decode(data)) for data in uploads])
    assert len(images) == 100
    return card, weights, images, directly(card, weights, images)


@pytest.mark.parametrize("kind", KINDS)
def test_best_class_of_real_photographs_is_that_of_fp32(
    kind: tuple[str, Precision],
    shop: Shop,
    photographs: tuple[Card, Path, np.ndarray, np.ndarray],
) -> None:
    card, weights, images, expected = photographs
    engine = shop.make(kind)
    engine.load(card, weights)
    parts = [engine.infer(images[n : n + BATCH_MAX]) for n in range(0, len(images), BATCH_MAX)]
    found = np.concatenate(parts)
    assert agreement(expected, found) >= AGREEMENT_MIN
    assert same_best(expected, found) >= (1.0 if kind[1] is Precision.FP32 else 0.99)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_types_and_every_batch_size(kind: tuple[str, Precision], shop: Shop) -> None:
    one = shop.loaded(kind)
    one.warm_up()
    batch = pixels(BATCH_MAX)
    whole = one.infer(batch)
    assert whole.dtype == np.float32
    rounding = 1e-4 if kind[1] is Precision.FP32 else 0.05 * float(np.abs(whole).max())
    for n in range(1, BATCH_MAX + 1):
        part = one.infer(batch[:n])
        assert part.shape == (n, 1000)
        np.testing.assert_allclose(part, whole[:n], rtol=0, atol=rounding)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_image_gives_the_same_logits(kind: tuple[str, Precision], shop: Shop) -> None:
    one = shop.loaded(kind)
    first, other = one.infer(pixels(1)), one.infer(255 - pixels(1))
    np.testing.assert_array_equal(one.infer(pixels(1)), first)
    assert np.abs(first - other).max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_its_input_and_its_earlier_answers_alone(
    kind: tuple[str, Precision], shop: Shop
) -> None:
    batch = pixels(1)
    before = batch.copy()
    one = shop.loaded(kind)
    answer = one.infer(batch)
    kept = answer.copy()
    one.infer(255 - batch)
    batch.flags.writeable = False
    np.testing.assert_array_equal(one.infer(batch), kept)
    np.testing.assert_array_equal(batch, before)
    np.testing.assert_array_equal(answer, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads_may_use_its_lanes(kind: tuple[str, Precision], shop: Shop) -> None:
    one = shop.loaded(kind, lanes=2)
    batches = [pixels(n)[:n] for n in (1, 1, 2, 3)]
    expected = [one.infer(batch) for batch in batches]
    found: dict[int, list[np.ndarray]] = {n: [] for n in range(len(batches))}

    def use(n: int) -> None:
        found[n] = [one.infer(batches[n]) for _ in range(3)]

    threads = [threading.Thread(target=use, args=(n,)) for n in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    for n, answers in found.items():
        assert len(answers) == 3
        for answer in answers:
            np.testing.assert_array_equal(answer, expected[n])


@pytest.mark.parametrize("kind", KINDS)
def test_two_models_live_side_by_side(kind: tuple[str, Precision], shop: Shop) -> None:
    first = shop.loaded(kind)
    before = first.infer(pixels(1))
    second = shop.fresh(kind, "mobilenet_v2")
    assert np.abs(second.infer(pixels(1)) - before).max() > 0
    second.close()
    np.testing.assert_array_equal(first.infer(pixels(1)), before)


@pytest.mark.parametrize("kind", EXACT)
def test_weights_that_are_not_the_cards_are_refused(
    kind: tuple[str, Precision], shop: Shop, tmp_path: Path
) -> None:
    card, weights = shop.model(SMALL)
    shop.loaded(kind)
    other = tmp_path / "other.pth"
    other.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(EnvironmentFault, match=card.sha256) as caught:
        shop.make(kind).load(card, other)
    assert caught.value.code == "weights_mismatch"


@pytest.mark.parametrize("kind", EXACT)
def test_weights_of_another_network_are_refused(kind: tuple[str, Precision], shop: Shop) -> None:
    card, weights = shop.model(SMALL)
    wrong = msgspec.structs.replace(card, architecture="mobilenet_v2")
    with pytest.raises(EnvironmentFault) as caught:
        shop.make(kind).load(wrong, weights)
    assert caught.value.code == "weights_dont_fit"


@pytest.mark.parametrize("kind", KINDS)
def test_infer_without_a_model_is_our_bug(kind: tuple[str, Precision], shop: Shop) -> None:
    with pytest.raises(LocalFault):
        shop.make(kind).infer(pixels(1))
    closed = shop.fresh(kind)
    closed.close()
    with pytest.raises(LocalFault):
        closed.infer(pixels(1))


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_it_is_in_one_short_line(kind: tuple[str, Precision], shop: Shop) -> None:
    text = shop.make(kind).describe()
    assert text.startswith(f"{kind[0]} ")
    assert f" {kind[1]} " in text
    assert "\n" not in text
    assert len(text) <= 128


def test_an_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="'steam'"):
        make_engine("steam", EngineConfig(tmp_path, 1, 1))


def test_a_precision_that_an_engine_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no fast int8") as caught:
        make_engine("torch", EngineConfig(tmp_path, 1, 1, Precision.INT8))
    assert caught.value.code == "precision_unsupported"
