"""Checkpoints: what loads, what is refused and in which words, and parity with torchvision."""

from __future__ import annotations

import csv
from collections import OrderedDict
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from tests.shared import IMAGENET100, SQUEEZENET, make_image, need_shared
from wire.card import Card, Preprocessing
from wire.errors import EnvironmentFault
from worker.identity import sha256_of
from worker.models import build, card_for_torchvision, load_model, save_checkpoint
from worker.preprocess import Preprocessor
from worker.vision import import_torchvision

PARITY = 1e-4
SMALL = "squeezenet1_1"


def fields(architecture: str = SMALL, classes: int = 3, **changes: object) -> dict[str, object]:
    """Card fields for a network of that many classes, at 64 px."""
    names = [f"class {i}" for i in range(classes)]
    preprocessing = Preprocessing(resize_px=64, crop_px=64)
    return {
        "architecture": architecture,
        "classes": names,
        "preprocessing": preprocessing,
    } | changes


def torchvision_model(architecture: str, **options: object) -> torch.nn.Module:
    """A direct torchvision call, with batch-norm statistics that matter."""
    torch.manual_seed(7)
    model = import_torchvision().models.get_model(architecture, weights=None, **options)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return model.eval()


def card_of(path: Path, **changes: object) -> Card:
    """A card that says the truth about a `.pth` file, but for `changes`."""
    about = {
        "id": path.stem,
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "format": "torch",
    }
    return msgspec.convert(fields() | about | changes, Card)


def refused(card: Card, weights: Path) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        load_model(card, weights)
    return caught.value


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Card, Path]:
    torch.manual_seed(1)
    path = tmp_path / "small.safetensors"
    return save_checkpoint(build(SMALL, 3), fields(), path), path


@pytest.mark.parametrize("architecture", ["googlenet", SMALL, "mobilenet_v2", "resnet50"])
def test_logits_equal_a_direct_torchvision_call(architecture: str, tmp_path: Path) -> None:
    options = {"aux_logits": False, "init_weights": False} if architecture == "googlenet" else {}
    direct = torchvision_model(architecture, num_classes=20, **options)
    path = tmp_path / "weights.safetensors"
    about = fields(architecture, 20, preprocessing=Preprocessing(resize_px=256, crop_px=224))
    card = save_checkpoint(direct, about, path, half=False)
    loaded = load_model(card, path)
    weights = import_torchvision().models.get_model_weights("alexnet").DEFAULT
    images = [make_image(seed, size) for seed, size in enumerate([(300, 400), (224, 224)])]
    prepare = Preprocessor(card.preprocessing)
    with torch.inference_mode():
        ours = loaded(torch.from_numpy(np.stack([prepare(image) for image in images])))
        theirs = direct(torch.stack([weights.transforms()(image) for image in images]))
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=PARITY)


def test_published_googlenet_files_keep_their_meaning_without_transform_input(
    tmp_path: Path,
) -> None:
    published = torchvision_model("googlenet", init_weights=False, transform_input=True)
    path = tmp_path / "googlenet.pth"
    torch.save(published.state_dict(), path)
    card = card_for_torchvision("googlenet", path)
    assert any(key.startswith("aux1.") for key in published.state_dict())
    assert card.preprocessing.mean == card.preprocessing.std == (0.5, 0.5, 0.5)
    image = make_image(3, (320, 260))
    preset = import_torchvision().models.GoogLeNet_Weights.DEFAULT.transforms()
    with torch.inference_mode():
        ours = load_model(card, path)(
            torch.from_numpy(Preprocessor(card.preprocessing)(image))[None]
        )
        theirs = published(preset(image)[None])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=PARITY)


@pytest.mark.parametrize("architecture", ["vit_b_16", "densenet121", "mnasnet0_5"])
def test_families_with_old_layouts_load(architecture: str, tmp_path: Path) -> None:
    model = build(architecture, 3, 64)
    state = OrderedDict(
        (
            key.replace("norm1.", "norm.1.").replace("conv1.", "conv.1.")
            if "denselayer" in key
            else key,
            v,
        )
        for key, v in model.state_dict().items()
    )
    path = tmp_path / f"{architecture}.pth"
    torch.save(dict(state), path)
    loaded = load_model(card_of(path, architecture=architecture), path)
    for (name, ours), theirs in zip(
        loaded.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision_becomes_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    model = build(SMALL, 3).to(dtype)
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    card = card_of(path, dtype=str(dtype).removeprefix("torch."))
    loaded = load_model(card, path)
    assert not loaded.training
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].float()), name


def test_a_stored_checkpoint_is_half_the_size_and_has_its_card_beside_it(
    checkpoint: tuple[Card, Path],
) -> None:
    card, path = checkpoint
    assert msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Card) == card
    assert (card.id, card.dtype, card.format) == ("small", "float16", "safetensors")
    assert card.size_bytes < 2.1 * sum(p.numel() for p in build(SMALL, 3).parameters())
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "small.json",
        "small.safetensors",
    ]


def test_a_weight_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    model = build(SMALL, 3)
    with torch.no_grad():
        next(model.parameters())[0] = 70_000.0
    with pytest.raises(EnvironmentFault, match=r"features\.0\.weight reaches 70000"):
        save_checkpoint(model, fields(), tmp_path / "large.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_than_the_cards_are_refused(checkpoint: tuple[Card, Path]) -> None:
    card, path = checkpoint
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    fault = refused(card, path)
    assert fault.code == "weights_mismatch"
    assert card.sha256 in fault.reason


def test_a_missing_file_is_told(checkpoint: tuple[Card, Path]) -> None:
    card, path = checkpoint
    path.unlink()
    assert refused(card, path).code == "weights_unreadable"


def test_another_class_count_names_the_tensors(checkpoint: tuple[Card, Path]) -> None:
    card, path = checkpoint
    fault = refused(msgspec.structs.replace(card, classes=["a", "b"]), path)
    assert fault.code == "weights_dont_fit"
    expected = "classifier.1.weight has shape [3, 512, 1, 1], the network wants [2, 512, 1, 1]"
    assert expected in fault.reason


def test_another_architecture_names_tensors_and_counts_the_rest(
    checkpoint: tuple[Card, Path],
) -> None:
    card, path = checkpoint
    fault = refused(msgspec.structs.replace(card, architecture="alexnet"), path)
    assert fault.code == "weights_dont_fit"
    assert "features.0.weight has shape [64, 3, 3, 3]" in fault.reason


def test_missing_and_surplus_tensors_are_named(tmp_path: Path) -> None:
    state = build(SMALL, 3).state_dict()
    state["surplus"] = state.pop("classifier.1.bias")
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    fault = refused(card_of(path), path)
    assert "classifier.1.bias is missing" in fault.reason
    assert "surplus [3] is not in the network" in fault.reason


def test_another_dtype_than_the_cards_is_told(checkpoint: tuple[Card, Path]) -> None:
    card, path = checkpoint
    fault = refused(msgspec.structs.replace(card, dtype="float32"), path)
    assert "says dtype float32, the file holds float16" in fault.reason


def test_an_unknown_architecture_lists_the_known(checkpoint: tuple[Card, Path]) -> None:
    card, path = checkpoint
    fault = refused(msgspec.structs.replace(card, architecture="yolo"), path)
    assert fault.code == "unknown_architecture"
    assert "googlenet" in fault.reason


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    state = build(SMALL, 3).state_dict()
    state["classifier.1.bias"][0] = float("nan")
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    fault = refused(card_of(path), path)
    assert (fault.code, "classifier.1.bias" in fault.reason) == ("weights_not_finite", True)


class Bomb:
    """What a hostile pickle would do: here it would only make a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.mkdir, (self.trace,)


def test_a_pickle_that_calls_is_refused_and_calls_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"features.0.weight": Bomb(trace)}, path)
    assert refused(card_of(path), path).code == "weights_unreadable"
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"epoch": 3, "model": {}}, "no_state_dict"),
        ([1, 2], "no_state_dict"),
        ({}, "no_state_dict"),
    ],
)
def test_what_is_no_state_dict_is_told(content: object, code: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert refused(card_of(path), path).code == code


@pytest.mark.parametrize("file_format", ["torch", "safetensors"])
def test_a_cut_file_is_unreadable(
    file_format: str, checkpoint: tuple[Card, Path], tmp_path: Path
) -> None:
    path = tmp_path / "cut"
    path.write_bytes(checkpoint[1].read_bytes()[:1000])
    fault = refused(card_of(path, format=file_format), path)
    assert fault.code == "weights_unreadable"


def test_torchvisions_table_tells_a_published_file_from_a_similar_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(build("resnet50", 1000).state_dict(), path)
    card = card_for_torchvision("resnet50", path)
    assert (card.preprocessing.resize_px, card.preprocessing.crop_px) == (256, 224)
    assert len(card.classes) == 1000
    assert card.accuracy == {}
    assert "assumed" in card.origin


def test_the_real_squeezenet_recognises_real_photographs() -> None:
    weights, photos = need_shared(SQUEEZENET), need_shared(IMAGENET100)
    card = card_for_torchvision(SMALL, weights)
    assert card.dtype == "float16"
    model, prepare = load_model(card, weights), Preprocessor(card.preprocessing)
    rows = list(csv.DictReader((photos / "labels.csv").open()))
    images = [prepare(Image.open(photos / row["file"]).convert("RGB")) for row in rows]
    with torch.inference_mode():
        best = model(torch.from_numpy(np.stack(images))).topk(5).indices
    labels = torch.tensor([int(row["class_id"]) for row in rows])
    assert [card.classes[i] for i in labels[:2]] == [row["class_name"] for row in rows[:2]]
    assert int((best[:, 0] == labels).sum()) == 69
    assert int((best == labels[:, None]).any(1).sum()) == 89
