"""Slices of a real file, from many threads, and what is refused."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from master.models.weights import SLICE_BYTES_MAX, WeightsFile
from tests.unit.master.models.making import card_of
from wire.errors import EnvironmentFault, LocalFault, PeerFault
from wire.messages import FetchWeights

DATA = random.Random(3).randbytes(1_000_003)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(DATA)
    return path


def test_any_slice_is_the_file_there(path: Path) -> None:
    with WeightsFile(path, card_of(path)) as file:
        assert file.read(0, 10) == DATA[:10]
        assert file.read(999_990, 500) == DATA[999_990:]
        assert file.read(len(DATA), 1) == b""
        assert file.read(0, SLICE_BYTES_MAX) == DATA


def test_many_threads_read_one_file(path: Path) -> None:
    step = 4096
    with WeightsFile(path, card_of(path)) as file, ThreadPoolExecutor(8) as pool:
        slices = pool.map(lambda offset: file.read(offset, step), range(0, len(DATA), step))
        whole = b"".join(slices)
    assert hashlib.sha256(whole).hexdigest() == card_of(path).sha256


@pytest.mark.parametrize(
    ("offset", "length"),
    [(-1, 1), (len(DATA) + 1, 1), (0, 0), (0, -1), (0, SLICE_BYTES_MAX + 1), (2**80, 1)],
)
def test_a_slice_out_of_bounds_is_the_peers_fault(path: Path, offset: int, length: int) -> None:
    with WeightsFile(path, card_of(path)) as file, pytest.raises(PeerFault) as caught:
        file.read(offset, length)
    assert caught.value.code == "bad_slice"


def test_the_largest_slice_is_the_protocols() -> None:
    ask = {"type": "FetchWeights", "sha256": "0" * 64, "offset": 0, "length": SLICE_BYTES_MAX}
    msgspec.convert(ask, FetchWeights)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(ask | {"length": SLICE_BYTES_MAX + 1}, FetchWeights)


def test_replacing_the_file_by_renaming_disturbs_nobody(path: Path) -> None:
    with WeightsFile(path, card_of(path)) as file:
        new = path.with_suffix(".new")
        new.write_bytes(b"other")
        new.replace(path)
        assert file.read(0, SLICE_BYTES_MAX) == DATA


def _truncate(path: Path) -> None:
    with path.open("r+b") as other:
        other.truncate(500)


def _overwrite(path: Path) -> None:
    path.write_bytes(DATA[::-1])
    os.utime(path, (1.0, 1.0))  # a clock tick later, without waiting for one


@pytest.mark.parametrize("change", [_truncate, _overwrite])
def test_a_file_changed_in_place_is_noticed(path: Path, change: Callable[[Path], None]) -> None:
    with WeightsFile(path, card_of(path)) as file:
        change(path)
        with pytest.raises(EnvironmentFault, match="was changed while it is served"):
            file.read(0, 10)


def test_a_file_that_is_not_the_cards_is_not_opened(path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="its card says 5 bytes"):
        WeightsFile(path, card_of(path, size_bytes=5))


def test_a_missing_file_is_said(path: Path) -> None:
    card = card_of(path)
    path.unlink()
    with pytest.raises(EnvironmentFault, match="can't read the weights"):
        WeightsFile(path, card)


def test_a_closed_file_is_our_own_mistake(path: Path) -> None:
    file = WeightsFile(path, card_of(path))
    file.close()
    file.close()
    with pytest.raises(LocalFault):
        file.read(0, 1)
