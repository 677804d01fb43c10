"""Learning to answer like a trained model: a pupil follows its teacher, right or wrong."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from tests.unit.worker.training import ARCHITECTURE, SETTINGS, make_order, silent
from wire.card import Card
from wire.errors import EnvironmentFault
from worker.models import build, load_model, save_checkpoint
from worker.train import session
from worker.train.augment import Normalisation, plain
from worker.train.decoded import decode_all
from worker.train.folder import scan
from worker.train.loop import Trainer
from worker.train.session import Order
from worker.train.settings import Phase
from worker.train.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a model that tells the colours apart, but calls each by the name before it."""
    folder = tmp_path_factory.mktemp("teacher")
    order = make_order(dataset, folder, epochs=16, learning_rate=0.1)
    card = session.train(order, silent())
    assert card.accuracy["held-out"] > 0.85
    network = load_model(card, order.out.with_suffix(".safetensors"))
    last = network.get_submodule("fc")
    assert isinstance(last, nn.Linear)
    last.weight.copy_(last.weight.roll(-1, 0))
    last.bias.copy_(last.bias.roll(-1, 0))
    fields = {
        "architecture": card.architecture,
        "classes": card.classes,
        "preprocessing": card.preprocessing,
    }
    save_checkpoint(network, fields, folder / "wrong", half=False)
    return folder / "wrong.json"


def taught(order: Order, card: Path) -> Order:
    return Order(**{name: getattr(order, name) for name in order.__slots__} | {"teacher": card})


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_a_pupil_answers_like_its_teacher_as_far_as_it_is_told(
    dataset: Path, teacher: Path, tmp_path: Path, weight: float
) -> None:
    """All weight on the teacher: its wrong names. None on it: those of the labels."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = scan(dataset)
    images = decode_all(folder, 48, tmp_path / "spill")
    guide = load_teacher(teacher, tuple(folder.classes), CPU)
    said = guide.logits(plain(images.pixels, 48)).argmax(1)
    assert (said == images.labels).float().mean() < 0.15
    settings = msgspec.structs.replace(
        SETTINGS,
        epochs=30,
        temperature=1.0,
        phases=(Phase(input_px=48, until=1.0),),
        teacher_weight=weight,
    )
    trainer = Trainer(build(ARCHITECTURE, 3), settings, CPU, time.monotonic, guide)
    for _ in range(settings.epochs):
        trainer.run_epoch(images, images, lambda progress, loss: None)
    normalisation = Normalisation(mean=settings.mean, std=settings.std)
    answers = trainer.average.model(normalisation.apply(plain(images.pixels, 48))).argmax(1)
    wanted, other = (said, images.labels) if weight else (images.labels, said)
    assert (answers == wanted).float().mean() > 0.75
    assert (answers == other).float().mean() < 0.25


def test_the_card_names_the_teacher(dataset: Path, teacher: Path, tmp_path: Path) -> None:
    order = taught(make_order(dataset, tmp_path / "run", epochs=1), teacher)
    assert "taught by wrong; " in session.train(order, silent()).made_by


def test_a_teacher_sees_the_pupils_pixels_at_its_own_size_and_leaves_them(
    dataset: Path, teacher: Path
) -> None:
    guide = load_teacher(teacher, ("blue", "green", "red"), CPU)
    for side in (48, 24):
        images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
        before = images.clone()
        assert guide.logits(images).shape == (2, 3)
        assert torch.equal(images, before)


def test_a_teacher_that_does_not_fit_is_refused(
    dataset: Path, teacher: Path, tmp_path: Path
) -> None:
    other = msgspec.structs.replace(
        msgspec.json.decode(teacher.read_bytes(), type=Card), classes=["blue", "green", "yellow"]
    )
    (tmp_path / "other.json").write_bytes(msgspec.json.encode(other))
    order = make_order(dataset, tmp_path / "run")
    with pytest.raises(EnvironmentFault, match=r"yellow.*train the teacher on a folder"):
        session.train(taught(order, tmp_path / "other.json"), silent())
    with pytest.raises(EnvironmentFault, match=r"is not a model's card.*give NAME\.json"):
        session.train(taught(order, teacher.with_suffix(".safetensors")), silent())
