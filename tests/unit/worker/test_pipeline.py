"""Leases in, results out: with a small engine whose answers are known, and with a real one."""

from __future__ import annotations

import csv
import io
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wire import messages as m
from wire.card import Card, Preprocessing
from wire.errors import LocalFault
from worker.decode import DecodeLimits
from worker.engine import Engine, EngineConfig, make_engine
from worker.events import Event, Finished, Lease, Unwell
from worker.faults import Faults, parse_faults
from worker.models import card_for_torchvision, load_model
from worker.pipeline import Pipeline, PipelineConfig, Served
from worker.preprocess import Preprocessor
from worker.vision import import_torchvision
from worker.vitals import Vitals

TIMEOUT_S = 30.0
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourEngine:
    """Knows red, green and blue: the logits are the channels' means."""

    def __init__(self, *, lanes: int = 1) -> None:
        self.config = EngineConfig(Path(), 1, 4, lanes=lanes)
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failures: list[Exception] = []
        self.nan = False

    def load(self, card: Card, weights: Path) -> None:
        """Nothing to load."""

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def infer(self, batch: np.ndarray) -> np.ndarray:
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S)
        self.batches.append(len(batch))
        if self.failures:
            raise self.failures.pop()
        logits: np.ndarray = batch.mean(axis=(1, 2), dtype=np.float32)
        return logits * np.nan if self.nan else logits

    def describe(self) -> str:
        return "colours"

    def close(self) -> None:
        """Nothing to let go."""


def colour_card(name: str = "colours") -> Card:
    return Card(
        id=name,
        architecture="none",
        classes=list(COLOURS),
        preprocessing=Preprocessing(resize_px=8, crop_px=8),
        sha256="c" * 64,
        size_bytes=1,
    )


def served(engine: Engine, card: Card | None = None) -> Served:
    card = card or colour_card()
    return Served(card, engine, Preprocessor(card.preprocessing))


def picture(colour: str, size: tuple[int, int] = (16, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(buffer, "PNG")
    return buffer.getvalue()


class Bench:
    """A running pipeline and the events that it posts."""

    def __init__(
        self,
        *,
        limits: DecodeLimits | None = None,
        faults: Faults | None = None,
        batch_wait_s: float = 0.0,
    ) -> None:
        self.vitals = Vitals()
        self.events: queue.Queue[Event] = queue.Queue()
        config = PipelineConfig(2, 32, limits or DecodeLimits(), batch_wait_s)
        self.pipeline = Pipeline(config, faults or Faults(), self.vitals, self.events.put)
        self.pipeline.start()

    def submit(self, job: int, image: bytes) -> None:
        assign = m.Assign(job=f"j{job}", token=job + 1, attempt=1, name="x", image=image)
        self.pipeline.submit(Lease(assign, 0.0, None))

    def result(self) -> m.Result:
        event = self.events.get(timeout=TIMEOUT_S)
        assert isinstance(event, Finished), event
        return event.result

    def results(self, count: int) -> dict[str, m.Result]:
        found = [self.result() for _ in range(count)]
        return {result.job: result for result in found}


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: object) -> Bench:
        made.append(Bench(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for bench in made:
        bench.pipeline.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


def test_classifies_and_says_how_long_it_took(bench: Bench) -> None:
    bench.pipeline.serve(served(ColourEngine()))
    bench.submit(1, picture("blue"))
    result = bench.result()
    assert (result.job, result.token, result.model) == ("j1", 2, "colours")
    assert result.top5[0].label == "blue"
    assert result.fault is None
    expected = {"queue", "decode", "preprocess", "wait", "infer", "batch_size", "total"}
    assert set(result.timings_ms) == expected
    assert min(result.timings_ms.values()) >= 0.0


def test_a_bad_image_fails_alone(bench: Bench) -> None:
    bench.pipeline.serve(served(ColourEngine()))
    images = [picture("red"), b"", picture("green"), b"nonsense", picture("blue")[:40]]
    for job, image in enumerate(images):
        bench.submit(job, image)
    found = bench.results(5)
    codes = [fault.code if (fault := found[f"j{job}"].fault) else "" for job in range(5)]
    assert codes == ["", "empty_file", "", "not_an_image", "truncated_image"]
    assert not any(r.fault.retryable for r in found.values() if r.fault)
    assert [found[f"j{job}"].top5[0].label for job in (0, 2)] == ["red", "green"]


def test_batches_what_is_ready_and_never_waits_for_more(bench: Bench) -> None:
    engine = ColourEngine()
    engine.gate.clear()
    bench.pipeline.serve(served(engine))
    bench.submit(0, picture("red"))
    assert engine.entered.wait(TIMEOUT_S), "a single image is inferred without company"
    before = bench.vitals.read()[0]
    for job in range(1, 10):
        bench.submit(job, picture("green"))
    while bench.vitals.read()[0] < before + 9:
        assert not engine.gate.wait(0.001)
    engine.gate.set()
    bench.results(10)
    assert engine.batches[0] == 1
    assert max(engine.batches) == 4
    assert sum(engine.batches) == 10


def test_waits_for_company_only_if_some_is_coming(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(batch_wait_s=TIMEOUT_S)
    engine = ColourEngine()
    bench.pipeline.serve(served(engine))
    bench.submit(0, picture("red"))
    assert bench.result().fault is None, "a single image is not kept waiting"
    engine.gate.clear()
    bench.submit(1, picture("red"))
    assert engine.entered.wait(TIMEOUT_S)
    for job in range(2, 8):
        bench.submit(job, picture("green"))
    bench.submit(8, b"nonsense")
    engine.gate.set()
    assert len(bench.results(8)) == 8
    assert sum(engine.batches) == 8
    assert max(engine.batches) == 4


def test_lanes_infer_at_once(make_bench: Callable[..., Bench]) -> None:
    engine = ColourEngine(lanes=2)
    both = threading.Barrier(2)
    answer = engine.infer

    def infer(batch: np.ndarray) -> np.ndarray:
        both.wait(TIMEOUT_S)
        return answer(batch)

    engine.infer = infer  # type: ignore[method-assign]
    bench = make_bench(faults=Faults())
    bench.pipeline.serve(served(engine))
    engine.config = EngineConfig(Path(), 1, 1, lanes=2)
    for job in range(4):
        bench.submit(job, picture("blue"))
    assert len(bench.results(4)) == 4
    assert bench.pipeline.close()


def test_progress_rises_with_every_step(bench: Bench) -> None:
    bench.pipeline.serve(served(ColourEngine()))
    bench.submit(0, picture("red"))
    bench.result()
    assert bench.vitals.read()[0] == 2, "decoded, finished"


def test_an_engine_that_fails_gives_a_retryable_fault_and_works_on(bench: Bench) -> None:
    engine = ColourEngine()
    engine.failures = [RuntimeError("out of sorts")]
    bench.pipeline.serve(served(engine))
    bench.submit(0, picture("red"))
    fault = bench.result().fault
    assert fault is not None
    assert (fault.code, fault.retryable) == ("engine_error", True)
    assert "out of sorts" in fault.message
    bench.submit(1, picture("red"))
    assert bench.result().fault is None


def test_an_engine_that_always_fails_asks_for_a_fresh_process(bench: Bench) -> None:
    engine = ColourEngine()
    engine.failures = [RuntimeError("CUDA error: device-side assert")] * 3
    bench.pipeline.serve(served(engine))
    for job in range(3):
        bench.submit(job, picture("red"))
        assert bench.result().fault is not None
    event = bench.events.get(timeout=TIMEOUT_S)
    assert isinstance(event, Unwell)
    assert "3 forward passes in a row" in event.reason


def test_logits_that_are_no_numbers_are_no_answer(bench: Bench) -> None:
    engine = ColourEngine()
    engine.nan = True
    bench.pipeline.serve(served(engine))
    bench.submit(0, picture("red"))
    fault = bench.result().fault
    assert fault is not None
    assert fault.code == "engine_error"


def test_a_swap_leaves_begun_leases_to_their_own_model(bench: Bench) -> None:
    first, second = ColourEngine(), ColourEngine()
    first.gate.clear()
    bench.pipeline.serve(served(first, colour_card("first")))
    for job in range(6):
        bench.submit(job, picture("red"))
    assert first.entered.wait(TIMEOUT_S)
    bench.pipeline.serve(served(second, colour_card("second")))
    for job in range(6, 9):
        bench.submit(job, picture("red"))
    first.gate.set()
    found = bench.results(9)
    assert {found[f"j{job}"].model for job in range(6)} == {"first"}
    assert {found[f"j{job}"].model for job in range(6, 9)} == {"second"}
    assert (sum(first.batches), sum(second.batches)) == (6, 3)


def test_a_decoder_that_hangs_costs_one_job_and_asks_for_a_fresh_process(
    make_bench: Callable[..., Bench],
) -> None:
    limits = DecodeLimits(timeout_s=0.2, wedged_s=0.4)
    bench = make_bench(limits=limits, faults=parse_faults("hang-on=HANG"))
    bench.pipeline.serve(served(ColourEngine()))
    bench.submit(0, picture("red") + b"HANG")
    bench.submit(1, picture("red") + b"HANG")
    bench.submit(2, picture("green"))
    found = bench.results(3)
    codes = [fault.code if (fault := found[f"j{job}"].fault) else "" for job in range(3)]
    assert codes == ["decode_timeout", "decode_timeout", ""]
    assert not any(r.fault.retryable for r in found.values() if r.fault)
    event = bench.events.get(timeout=TIMEOUT_S)
    assert isinstance(event, Unwell)
    assert "stuck" in event.reason


def test_large_images_are_decoded_one_at_a_time(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(limits=DecodeLimits(large_pixels=10_000))
    bench.pipeline.serve(served(ColourEngine()))
    for job in range(8):
        bench.submit(job, picture("green", (300, 300)))
    assert all(r.top5[0].label == "green" for r in bench.results(8).values())


def test_more_than_its_bound_is_our_bug(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    with pytest.raises(LocalFault, match="before there was a model"):
        bench.submit(0, picture("red"))


def test_real_photographs_equal_a_direct_call(
    bench: Bench, imagenet100: Path, squeezenet_weights: Path, tmp_path: Path
) -> None:
    """69 of 100 in the first place and 89 in the first five, and the same logits as torch."""
    import torch

    import_torchvision()
    from torchvision.transforms._presets import ImageClassification

    card = card_for_torchvision("squeezenet1_1", squeezenet_weights)
    engine = make_engine("torch", EngineConfig(tmp_path, threads=2, batch_max=4))
    engine.load(card, squeezenet_weights)
    model = load_model(card, squeezenet_weights)
    preset = ImageClassification(crop_size=224, resize_size=256)
    labels = list(csv.DictReader((imagenet100 / "labels.csv").open(encoding="utf-8")))
    bench.pipeline.serve(served(engine, card))
    found: dict[str, m.Result] = {}
    for start in range(0, 100, 20):
        for job in range(start, start + 20):
            bench.submit(job, (imagenet100 / labels[job]["file"]).read_bytes())
        found |= bench.results(20)
    top1 = top5 = 0
    for job, label in enumerate(labels):
        guesses = found[f"j{job}"].top5
        with Image.open(imagenet100 / label["file"]) as image, torch.inference_mode():
            shares = model(preset(image.convert("RGB"))[None])[0].double().softmax(0)
        best = torch.topk(shares, 5)
        assert [g.class_id for g in guesses] == best.indices.tolist()
        np.testing.assert_allclose([g.confidence for g in guesses], best.values, atol=1e-5)
        top1 += guesses[0].class_id == int(label["class_id"])
        top5 += int(label["class_id"]) in [g.class_id for g in guesses]
    assert (top1, top5) == (69, 89)
