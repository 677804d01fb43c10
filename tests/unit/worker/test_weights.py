"""The cache of weights: resumed, verified, shared, and clear about what is wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wire.card import Card, Preprocessing
from wire.errors import ConnectionClosed, EnvironmentFault
from worker.weights import FILES_MAX, WeightsCache

DATA = bytes(range(256)) * 400
CHUNK_BYTES = 10_000


def card(data: bytes = DATA, sha256: str | None = None) -> Card:
    return Card(
        id="m",
        architecture="squeezenet1_1",
        classes=["a"],
        preprocessing=Preprocessing(resize_px=8, crop_px=8),
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
    )


class Origin:
    """Serves `data`, and breaks the connection after `breaks_after` bytes, once."""

    def __init__(self, data: bytes = DATA, breaks_after: int | None = None) -> None:
        self.data = data
        self.breaks_after = breaks_after
        self.asked: list[int] = []

    def __call__(self, card: Card, offset: int) -> Iterator[bytes]:
        self.asked.append(offset)
        for start in range(offset, len(self.data), CHUNK_BYTES):
            if self.breaks_after is not None and start >= self.breaks_after:
                self.breaks_after = None
                raise ConnectionClosed("cut")
            yield self.data[start : start + CHUNK_BYTES]


def test_fetches_once_and_finds_it_again(tmp_path: Path) -> None:
    origin = Origin()
    path = WeightsCache(tmp_path / "new").obtain(card(), origin)
    assert path.read_bytes() == DATA
    assert WeightsCache(tmp_path / "new").obtain(card(), origin) == path
    assert origin.asked == [0]


def test_goes_on_where_a_broken_connection_stopped(tmp_path: Path) -> None:
    origin = Origin(breaks_after=30_000)
    cache = WeightsCache(tmp_path)
    with pytest.raises(ConnectionClosed):
        cache.obtain(card(), origin)
    assert cache.obtain(card(), origin).read_bytes() == DATA
    assert origin.asked == [0, 30_000]


def test_a_part_that_is_complete_needs_no_fetch(tmp_path: Path) -> None:
    (tmp_path / f"{card().sha256}.part").write_bytes(DATA)
    origin = Origin()
    assert WeightsCache(tmp_path).obtain(card(), origin).read_bytes() == DATA
    assert origin.asked == []


@pytest.mark.parametrize("part", [b"wrong" * 100, bytes(len(DATA)), DATA + b"too long"])
def test_a_damaged_part_is_fetched_anew(tmp_path: Path, part: bytes) -> None:
    (tmp_path / f"{card().sha256}.part").write_bytes(part)
    origin = Origin()
    assert WeightsCache(tmp_path).obtain(card(), origin).read_bytes() == DATA
    assert origin.asked[-1] == 0


def test_a_damaged_cache_entry_is_fetched_anew(tmp_path: Path) -> None:
    origin = Origin()
    cache = WeightsCache(tmp_path)
    cache.obtain(card(), origin).write_bytes(DATA[:-1] + b"?")
    assert cache.obtain(card(), origin).read_bytes() == DATA
    assert origin.asked == [0, 0]


def test_weights_that_are_not_what_the_card_says_are_refused(tmp_path: Path) -> None:
    wrong = card(sha256="0" * 64)
    with pytest.raises(EnvironmentFault, match="0000") as caught:
        WeightsCache(tmp_path).obtain(wrong, Origin())
    assert caught.value.code == "weights_mismatch"
    assert not list(tmp_path.glob("*.weights"))
    assert not list(tmp_path.glob("*.part"))


def test_workers_of_one_machine_share_one_fetch(tmp_path: Path) -> None:
    origin = Origin()
    start = threading.Barrier(8)

    def obtain() -> bytes:
        start.wait(10.0)
        return WeightsCache(tmp_path).obtain(card(), origin).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        found = [future.result(30.0) for future in [pool.submit(obtain) for _ in range(8)]]
    assert set(found) == {DATA}
    assert origin.asked == [0]


def test_keeps_the_files_used_last(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path)
    for index in range(FILES_MAX + 2):
        data = bytes([index]) * 100
        path = cache.obtain(card(data), Origin(data))
        os.utime(path, (index, index))
    newest = bytes([99]) * 100
    cache.obtain(card(newest), Origin(newest))
    left = {path.read_bytes()[0] for path in tmp_path.glob("*.weights")}
    assert left == {99, *range(3, FILES_MAX + 2)}


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    def full(card: Card, offset: int) -> Iterator[bytes]:
        yield DATA[:100]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(EnvironmentFault, match="--cache") as caught:
        WeightsCache(tmp_path).obtain(card(), full)
    assert caught.value.code == "disk_full"
    assert f"{len(DATA):,}" in caught.value.reason


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_that_is_really_full_is_said_so(tmp_path: Path) -> None:
    (tmp_path / f"{card().sha256}.part").symlink_to("/dev/full")
    with pytest.raises(EnvironmentFault) as caught:
        WeightsCache(tmp_path).obtain(card(), Origin())
    assert caught.value.code == "disk_full"


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFault, match="--cache") as caught:
        WeightsCache(tmp_path / "file").obtain(card(), Origin())
    assert caught.value.code == "cache_unwritable"
