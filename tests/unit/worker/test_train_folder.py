"""A folder per class: what is found, held out and decoded, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.unit.worker.training import make_dataset
from wire.errors import EnvironmentFault
from worker.train import decoded
from worker.train.decoded import decode_all, stored_side
from worker.train.folder import Folder, scan, split


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "colours")


def refused(root: Path, **options: object) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        scan(root, **options)
    return caught.value


def test_classes_are_the_folders_in_order(dataset: Path) -> None:
    (dataset / ".hidden").mkdir()
    (dataset / "notes.txt").write_text("no class")
    (dataset / "red" / "notes.txt").write_text("no image")
    folder = scan(dataset)
    assert folder.classes == ("blue", "green", "red")
    assert len(folder.images) == 36
    assert {(path.parent.name, label) for path, label in folder.images} == {
        ("blue", 0),
        ("green", 1),
        ("red", 2),
    }


def test_an_empty_class_is_named(dataset: Path) -> None:
    (dataset / "white").mkdir()
    fault = refused(dataset)
    assert fault.code == "empty_class"
    assert "'white'" in fault.reason


def test_names_that_a_person_takes_for_one_are_refused(dataset: Path) -> None:
    (dataset / "Red").mkdir()
    fault = refused(dataset)
    assert fault.code == "class_clash"
    assert "'Red' and 'red'" in fault.reason


def test_no_folder_and_no_classes_are_told(tmp_path: Path, dataset: Path) -> None:
    assert refused(tmp_path / "absent").code == "no_folder"
    assert refused(dataset / "red").code == "no_classes"


def test_held_out_images_use_the_models_classes(dataset: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    (held / "red").mkdir(parents=True)
    (dataset / "red" / "000.png").rename(held / "red" / "000.png")
    assert scan(held, ("blue", "green", "red")).images == ((held / "red" / "000.png", 2),)
    fault = refused(held, classes=("blue", "green"))
    assert fault.code == "unknown_class"
    assert "red" in fault.reason


def test_a_split_holds_out_the_share_of_each_class(dataset: Path) -> None:
    folder = scan(dataset)
    train, val = split(folder, 0.25, random.Random(1))
    assert sorted(train.images + val.images) == sorted(folder.images)
    for number in range(3):
        assert sum(label == number for _, label in val.images) == 3
    assert split(folder, 0.25, random.Random(1)) == (train, val)
    assert split(folder, 0.25, random.Random(2)) != (train, val)


def test_a_split_leaves_both_parts_something(dataset: Path) -> None:
    for share in (0.001, 0.9):
        for part in split(scan(dataset), share, random.Random(1)):
            assert {label for _, label in part.images} == {0, 1, 2}


def test_a_single_image_cannot_be_split(dataset: Path) -> None:
    for path in sorted((dataset / "red").iterdir())[1:]:
        path.unlink()
    with pytest.raises(EnvironmentFault, match=r"'red' has a single image.*--val"):
        split(scan(dataset), 0.25, random.Random(1))


def test_the_fingerprint_tells_another_list_of_images(dataset: Path) -> None:
    folder = scan(dataset)
    fewer = Folder(classes=folder.classes, images=folder.images[1:])
    assert folder.fingerprint(dataset) == scan(dataset).fingerprint(dataset)
    assert folder.fingerprint(dataset) != fewer.fingerprint(dataset)


def test_pixels_are_centred_squares(dataset: Path, tmp_path: Path) -> None:
    folder = scan(dataset)
    data = decode_all(folder, 24, tmp_path / "spill")
    path, label = folder.images[20]
    expected = ImageOps.fit(Image.open(path), (24, 24), Image.Resampling.BILINEAR)
    assert data.pixels.shape == (36, 3, 24, 24)
    assert np.array_equal(data.pixels[20].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert data.labels[20] == label
    assert not (tmp_path / "spill").exists()


def test_pixels_that_ram_cannot_hold_lie_in_a_file(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_ram = decode_all(scan(dataset), 24, tmp_path / "unused")
    monkeypatch.setattr(decoded, "RAM_SHARE", 0.0)
    spill = tmp_path / "run" / "spill"
    on_disk = decode_all(scan(dataset), 24, spill)
    assert spill.stat().st_size == 36 * 3 * 24 * 24
    assert torch.equal(on_disk.pixels, in_ram.pixels)


def test_a_disk_that_cannot_hold_them_is_told(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "RAM_SHARE", 0.0)
    (tmp_path / "file").write_text("a file where a folder is needed")
    with pytest.raises(EnvironmentFault, match="62,208 bytes") as caught:
        decode_all(scan(dataset), 24, tmp_path / "file" / "spill")
    assert caught.value.code == "disk_full"


def test_all_unreadable_images_are_named_at_once(dataset: Path, tmp_path: Path) -> None:
    (dataset / "blue" / "000.png").write_bytes(b"not an image")
    cut = (dataset / "red" / "001.png").read_bytes()[:60]
    (dataset / "red" / "001.png").write_bytes(cut)
    with pytest.raises(EnvironmentFault) as caught:
        decode_all(scan(dataset), 24, tmp_path / "spill")
    assert caught.value.code == "unreadable_image"
    assert caught.value.reason.startswith("2 images")
    for name in ("blue/000.png", "red/001.png"):
        assert str(dataset / name) in caught.value.reason


def test_small_sources_are_kept_small_and_large_ones_cut_down(dataset: Path) -> None:
    folder = scan(dataset)
    assert stored_side(folder, 96, random.Random(1)) == 40
    assert stored_side(folder, 32, random.Random(1)) == 36
