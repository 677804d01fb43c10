"""A weights file against its card, and against torchvision where it has none."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from master.models import catalogue as catalogues
from master.models.checkpoint import check_checkpoint
from tests.unit.master.models.making import (
    OTHER,
    SMALL,
    card_of,
    catalogue_with,
    write_card,
    write_safetensors,
    write_torch,
)
from wire.card import Card, Preprocessing
from wire.errors import EnvironmentFault
from worker.models import build, load_model, save_checkpoint

REAL = catalogues.load()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of three classes; tests write cards beside links to it."""
    return write_safetensors(tmp_path_factory.mktemp("own") / "mine.safetensors")


@pytest.fixture
def weights(own: Path, tmp_path: Path) -> Path:
    path = tmp_path / own.name
    path.hardlink_to(own)
    return path


def fault_of(path: Path, model: str | None = None, code: str = "") -> str:
    with pytest.raises(EnvironmentFault) as caught:
        check_checkpoint(path, model, REAL)
    assert caught.value.code == code
    return caught.value.reason


@pytest.mark.parametrize("model", [None, SMALL])
def test_a_true_card_is_taken_as_it_is(weights: Path, model: str | None) -> None:
    write_card(weights, licence="MIT", accuracy={"mine": 0.9})
    assert check_checkpoint(weights, model, REAL) == card_of(
        weights, licence="MIT", accuracy={"mine": 0.9}
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accepted(tmp_path: Path, dtype: torch.dtype) -> None:
    for path in (
        write_safetensors(tmp_path / "a.safetensors", dtype=dtype),
        write_torch(tmp_path / "b.pth", classes=3, dtype=dtype),
        write_torch(tmp_path / "c.pth", classes=3, dtype=dtype, legacy=True),
    ):
        write_card(path, dtype=str(dtype).removeprefix("torch."))
        assert check_checkpoint(path, None, REAL).architecture == SMALL


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"sha256": "0" * 64}, "wrong_hash", "fetch both again"),
        ({"size_bytes": 5}, "wrong_hash", "(5 bytes"),
        ({"format": "torch"}, "card_mismatch", "the file is 'safetensors'"),
        ({"dtype": "float16"}, "card_mismatch", "the tensors are 'float32'"),
        ({"classes": ["ant", "bee"]}, "wrong_class_count", "lists 2 classes"),
        ({"classes": list("abcd")}, "wrong_class_count", "has 3 outputs"),
        ({"architecture": OTHER}, "wrong_architecture", f"are those of {SMALL}"),
        ({"architecture": "squeezenet"}, "unknown_model", "did you mean"),
        ({"id": ""}, "bad_card", "1 to 128 characters"),
        ({"id": "x" * 129}, "bad_card", "1 to 128 characters"),
        ({"classes": []}, "bad_card", "$.classes"),
        ({"dtype": "int8"}, "bad_card", "float32, float16, bfloat16"),
        ({"accuracy": {"a": 92.0}}, "bad_card", "[0, 1]"),
    ],
)
def test_a_card_that_does_not_fit_says_where(
    weights: Path, changes: dict[str, Any], code: str, said: str
) -> None:
    write_card(weights, **changes)
    assert said in fault_of(weights, code=code)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interpolation": "cubic"}, "'cubic' is none of"),
        ({"std": (0.2, 0.0, 0.2)}, "above 0"),
        ({"std": (0.2, -1.0, 0.2)}, "above 0"),
        ({"mean": (1e309, 0.0, 0.0)}, "preprocessing.mean"),
        ({"crop_px": 0}, "preprocessing.crop_px"),
    ],
)
def test_preprocessing_that_can_not_be_is_refused(
    weights: Path, changes: dict[str, Any], said: str
) -> None:
    recipe = msgspec.structs.replace(Preprocessing(resize_px=72, crop_px=64), **changes)
    write_card(weights, preprocessing=recipe)
    assert said in fault_of(weights, code="bad_card")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "truncated"),
        ("[]", "object"),
        ("{}", "`id`"),
        ("{" * 5, "malformed"),
        ('{"id": "\udcff"}', "utf-8"),
    ],
)
def test_json_that_is_no_card_is_refused(weights: Path, text: str, said: str) -> None:
    weights.with_suffix(".json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert said in fault_of(weights, code="bad_card").lower()


def test_a_huge_card_is_not_read(weights: Path) -> None:
    with weights.with_suffix(".json").open("wb") as file:
        file.truncate(5 * 2**20)
    assert "the limit is 4194304" in fault_of(weights, code="bad_card")


def test_another_model_than_asked_for_is_refused(weights: Path) -> None:
    write_card(weights)
    assert f"give --model {SMALL}" in fault_of(weights, "resnet18", code="wrong_model")


def test_weights_without_a_card_ask_for_one_that_then_does(weights: Path) -> None:
    reason = fault_of(weights, SMALL, code="card_needed")
    assert "3 classes" in reason
    example = json.loads(reason[reason.index("{") :])
    assert len(example["classes"]) == 3
    weights.with_suffix(".json").write_text(json.dumps(example))
    card = check_checkpoint(weights, None, REAL)
    assert (card.id, card.architecture, card.classes) == ("mine", SMALL, example["classes"])


def test_weights_that_nothing_names_are_guessed_for_the_example(weights: Path) -> None:
    reason = fault_of(weights, None, code="card_needed")
    assert json.loads(reason[reason.index("{") :])["architecture"] == SMALL


def test_imagenet_weights_without_a_card_need_only_their_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_torch(tmp_path / "half.pth")
    assert f"give --model {SMALL}" in fault_of(path, None, code="card_needed")
    with caplog.at_level(logging.WARNING, "lookout.models"):
        card = check_checkpoint(path, SMALL, REAL)
    assert "preprocessing assumed" in caplog.messages
    assert (card.id, card.dtype, card.format) == ("half", "float16", "torch")
    assert card.classes == list(REAL.classes)
    assert card.accuracy == {}, "torchvision did not measure this file"


def test_the_real_squeezenet_is_served_by_its_name(squeezenet_weights: Path) -> None:
    card = check_checkpoint(squeezenet_weights, SMALL, REAL)
    assert card.id == "squeezenet1_1-imagenet-fp16"
    assert (card.classes[0], card.classes[999]) == ("tench", "toilet tissue")
    assert card.preprocessing == Preprocessing(resize_px=256, crop_px=224)


def test_weights_of_another_architecture_say_whose_they_are(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "half.pth", OTHER)
    assert f"are those of {OTHER}" in fault_of(path, SMALL, code="wrong_architecture")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"fc.weight": torch.ones(3, 7)}, "it has no tensor classifier.1.weight"),
        ({"classifier.1.weight": torch.ones(3, 7)}, "not [classes, 512, …]"),
        ({"classifier.1.weight": torch.ones(3, 512, 1, 1)}, "other tensors don't"),
        ({}, "it begins with none"),
        ({"classifier.1.weight": torch.ones(3, dtype=torch.float64)}, "are float64"),
        ({"classifier.1.weight": torch.ones(3, dtype=torch.int8)}, "are int8"),
        ({"a": torch.ones(3), "b": torch.ones(3).half()}, "are float16+float32"),
    ],
)
def test_weights_of_no_architecture_say_what_is_missing(
    tmp_path: Path, tensors: dict[str, torch.Tensor], said: str
) -> None:
    path = tmp_path / "odd.pth"
    torch.save(tensors, path)
    with pytest.raises(EnvironmentFault) as caught:
        check_checkpoint(path, SMALL, REAL)
    assert said in caught.value.reason


@pytest.mark.parametrize("model", [None, SMALL])
def test_torchvisions_own_file_is_known_by_its_hash(tmp_path: Path, model: str | None) -> None:
    path = write_torch(tmp_path / "renamed.pth", legacy=True)
    catalogue = catalogue_with(path, "http://example.invalid/models/published-00.pth")
    card = check_checkpoint(path, model, catalogue)
    assert card.id == f"{SMALL}-imagenet1k_v1"
    assert card.accuracy == {"imagenet": 0.58178}
    assert "torchvision" in card.made_by and "torchvision" in card.licence


def test_torchvisions_own_file_asked_for_as_another_is_refused(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "renamed.pth")
    catalogue = catalogue_with(path, "http://example.invalid/models/published-00.pth")
    with pytest.raises(EnvironmentFault, match=f"those of {SMALL}"):
        check_checkpoint(path, "resnet18", catalogue)


def test_a_file_that_breaks_its_names_promise_is_refused(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "squeezenet1_1-b8a52dc0.pth")
    assert "begins with b8a52dc0" in fault_of(path, SMALL, code="wrong_hash")


def test_every_card_made_here_passes_as_the_wire_decodes_it(squeezenet_weights: Path) -> None:
    card = check_checkpoint(squeezenet_weights, SMALL, REAL)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(card), type=Card) == card


@pytest.mark.parametrize("half", [True, False])
def test_what_a_worker_writes_the_master_takes_and_a_worker_loads(
    tmp_path: Path, half: bool
) -> None:
    facts = {
        "architecture": OTHER,
        "classes": ["ant", "bee", "cat", "dog"],
        "preprocessing": {"resize_px": 72, "crop_px": 64},
    }
    written = save_checkpoint(build(OTHER, 4), facts, tmp_path / "trained", half=half)
    path = tmp_path / "trained.safetensors"
    assert check_checkpoint(path, None, REAL) == written
    assert load_model(written, path).training is False
