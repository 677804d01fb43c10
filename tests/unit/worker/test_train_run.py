"""Runs from start to checkpoint: learning, resuming, determinism, and what ends them."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import msgspec
import pytest
import torch

from tests.unit.worker.training import (
    ARCHITECTURE,
    SETTINGS,
    make_order,
    silent,
)
from wire.card import Card
from wire.errors import EnvironmentFault
from worker.models import build, load_model, save_checkpoint
from worker.train import session
from worker.train.decoded import decode_all
from worker.train.folder import scan, split
from worker.train.loop import EpochResult, Trainer, _Lesson
from worker.train.run import Run, RunFolder
from worker.train.settings import Phase

pytestmark = pytest.mark.usefixtures("one_thread")


def history_of(run: Path) -> list[EpochResult]:
    return RunFolder(run).history()


class Stop(Exception):
    """What ends a run in the middle of an epoch, like a lost machine."""


def stop_in_epoch(monkeypatch: pytest.MonkeyPatch, number: int, fault: BaseException) -> None:
    """Raise `fault` in the second step of the epoch with that number."""
    original = Trainer._step
    calls = itertools.count()

    def step(self: Trainer, lesson: _Lesson) -> torch.Tensor:
        if self.epoch == number - 1 and next(calls) == 1:
            raise fault
        return original(self, lesson)

    monkeypatch.setattr(Trainer, "_step", step)


def test_it_learns_and_leaves_a_checkpoint_that_serves(dataset: Path, tmp_path: Path) -> None:
    order = make_order(dataset, tmp_path / "run", epochs=12, learning_rate=0.1)
    card = session.train(order, silent())
    history = history_of(order.run)
    assert [each.epoch for each in history] == list(range(1, 13))
    assert [each.input_px for each in history] == [32] * 6 + [48] * 6
    assert history[-1].train_loss < 0.75 * history[0].train_loss
    assert card.accuracy["held-out"] > 0.85
    # The weights are the best epoch's, and so is the size: which it is depends on the processor.
    best = max(history, key=lambda each: (each.val_accuracy, -each.val_loss))
    assert (card.id, card.licence, card.preprocessing.crop_px) == ("tiny", "test", best.input_px)
    weights = order.out.with_suffix(".safetensors")
    assert msgspec.json.decode(order.out.with_suffix(".json").read_bytes(), type=Card) == card
    load_model(card, weights)
    report = session.evaluate(order.out.with_suffix(".json"), dataset, tmp_path / "r", silent())
    assert report.images == 36
    assert report.accuracy > 0.85
    names = {path.name for path in order.run.iterdir()} | {
        p.name for p in (tmp_path / "r").iterdir()
    }
    assert {"learning_curve.png", "confusion-held-out.png", "confusion-colours.png"} <= names


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    optimizer: str, dataset: Path, tmp_path: Path
) -> None:
    cards = [
        session.train(
            make_order(dataset, tmp_path / str(run), epochs=2, seed=seed, optimizer=optimizer),
            silent(),
        )
        for run, seed in enumerate((1, 1, 2))
    ]
    assert cards[0].sha256 == cards[1].sha256
    assert cards[0].sha256 != cards[2].sha256


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_run_stopped_in_an_epoch_ends_as_if_it_had_not_been(
    optimizer: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_order(dataset, tmp_path / "whole", optimizer=optimizer)
    stopped = make_order(dataset, tmp_path / "stopped", optimizer=optimizer)
    expected = session.train(whole, silent())
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_in_epoch(patch, 3, Stop())
        session.train(stopped, silent())
    assert [each.epoch for each in history_of(stopped.run)] == [1, 2]
    assert session.train(stopped, silent()).sha256 == expected.sha256
    losses = [[(e.train_loss, e.val_loss) for e in history_of(o.run)] for o in (whole, stopped)]
    assert losses[0] == losses[1]


def test_a_finished_run_only_packs_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = make_order(dataset, tmp_path / "run", epochs=1)
    card = session.train(order, silent())
    stop_in_epoch(monkeypatch, 2, AssertionError("trained again"))
    assert session.train(order, silent()) == card


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_running_out_of_memory_is_advice_and_loses_nothing(
    fault: Exception, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = make_order(dataset, tmp_path / "run", epochs=2)
    with (
        monkeypatch.context() as patch,
        pytest.raises(EnvironmentFault, match="--batch 4") as caught,
    ):
        stop_in_epoch(patch, 2, fault)
        session.train(order, silent())
    assert caught.value.code == "out_of_memory"
    session.train(order, silent())
    assert [each.epoch for each in history_of(order.run)] == [1, 2]


def test_other_errors_are_not_taken_for_memory(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_epoch(monkeypatch, 1, RuntimeError("sizes do not match"))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        session.train(make_order(dataset, tmp_path / "run"), silent())


def test_a_loss_that_is_no_number_ends_the_run(dataset: Path, tmp_path: Path) -> None:
    order = make_order(dataset, tmp_path / "run", learning_rate=1e20, epochs=3, warmup=0.0)
    with pytest.raises(EnvironmentFault, match=r"loss became .*smaller --lr") as caught:
        session.train(order, silent())
    assert caught.value.code == "diverged"


def test_changed_images_or_classes_are_refused(dataset: Path, tmp_path: Path) -> None:
    """Held-out images of the old split could be training images of the new one."""
    order = make_order(dataset, tmp_path / "run", epochs=1)
    session.train(order, silent())
    for changes in ({"seed": 6}, {"val_share": 0.5}, {"architecture": "squeezenet1_1"}):
        with pytest.raises(EnvironmentFault, match="another --run") as caught:
            session.train(make_order(dataset, tmp_path / "run", **changes), silent())
        assert caught.value.code == "other_run"


def test_a_run_without_progress_ends_early(dataset: Path, tmp_path: Path) -> None:
    """At rate 0 each epoch equals the first one of its size."""
    order = make_order(
        dataset, tmp_path / "run", epochs=20, patience_epochs=2, learning_rate=0.0, ema_decay=0.0
    )
    session.train(order, silent())
    assert [each.epoch for each in history_of(order.run)] == [1, 2, 3]


def test_the_best_epoch_is_packed_not_the_last(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([(0.9, 0.5), (0.8, 0.7), (0.7, 0.7), (0.7, 0.6)])
    monkeypatch.setattr(Trainer, "_evaluate_average", lambda *_: next(scores))
    order = make_order(dataset, tmp_path / "run", patience_epochs=3)
    card = session.train(order, silent())
    assert "epoch 3" in card.made_by
    assert card.preprocessing.crop_px == 48


def test_a_time_budget_decides_the_schedule(dataset: Path) -> None:
    """Each reading of the clock is a second later; the run lasts twenty."""
    seconds = itertools.count()
    settings = msgspec.structs.replace(SETTINGS, budget_s=20.0, epochs=1)
    train, val = split(scan(dataset), 0.25, random.Random(1))
    data = [decode_all(part, 40, dataset / "spill") for part in (train, val)]
    trainer = Trainer(build(ARCHITECTURE, 3), settings, torch.device("cpu"), lambda: next(seconds))
    results = []
    while not trainer.finished:
        results.append(trainer.run_epoch(*data, lambda progress, loss: None))
    assert len(results) > 1
    assert results[0].input_px == 32
    assert results[-1].input_px == 48
    assert results[-1].elapsed_s >= 20
    assert results[-2].elapsed_s < 20


def test_an_interrupted_write_leaves_the_checkpoint_before_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = make_order(dataset, tmp_path / "run", epochs=2)
    original = Run._store

    def store(self: Run, result: EpochResult) -> None:
        if result.epoch == 2:
            monkeypatch.setattr(torch, "save", _write_half)
        original(self, result)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Run, "_store", store)
        patch.setattr(torch, "save", torch.save)
        session.train(order, silent())
    monkeypatch.undo()
    assert session.train(order, silent()).accuracy
    assert [each.epoch for each in history_of(order.run)] == [1, 2]
    assert not [path for path in order.run.iterdir() if path.name.startswith(".")]


def _write_half(state: object, path: Path) -> None:
    path.write_bytes(b"half a checkpoint")
    raise Stop


def test_fine_tuning_starts_from_a_checkpoint_and_its_normalisation(
    dataset: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    source = build(ARCHITECTURE, 7)
    preprocessing = {
        "resize_px": 48,
        "crop_px": 48,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    about = {
        "architecture": ARCHITECTURE,
        "classes": list("abcdefg"),
        "preprocessing": preprocessing,
    }
    save_checkpoint(source, about, tmp_path / "source", half=False)
    base = make_order(dataset, tmp_path / "run", epochs=1, learning_rate=0.0, ema_decay=0.0)
    order = session.Order(
        **{name: getattr(base, name) for name in base.__slots__}
        | {"weights": tmp_path / "source.safetensors"}
    )
    card = session.train(order, silent())
    assert card.preprocessing.mean == (0.5, 0.5, 0.5)
    tuned = load_model(card, order.out.with_suffix(".safetensors"))
    key = "conv1.0.weight"
    torch.testing.assert_close(tuned.state_dict()[key], source.state_dict()[key])
    assert tuned.state_dict()["fc.weight"].shape[0] == 3


def test_starting_from_another_architecture_is_refused(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(build("squeezenet1_1", 3).state_dict(), path)
    base = make_order(dataset, tmp_path / "run")
    order = session.Order(
        **{name: getattr(base, name) for name in base.__slots__} | {"weights": path}
    )
    with pytest.raises(EnvironmentFault, match="is --arch the file's architecture"):
        session.train(order, silent())


def test_phases_follow_progress() -> None:
    settings = msgspec.structs.replace(
        SETTINGS, phases=(Phase(input_px=32, until=0.5), Phase(input_px=64, until=1.0))
    )
    assert [settings.input_px(p) for p in (0.0, 0.49, 0.5, 1.0)] == [32, 32, 64, 64]
