"""Writes around the page cache: the same bytes, in whole blocks, however groups are cut."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from master.store import StoreConfig, direct, open_store
from master.store.check import problems
from master.store.direct import BLOCK_BYTES, DirectBuffer, aligned, open_direct
from tests.unit.master.store.make import image, part

DONE_S = 20.0
CONFIG = StoreConfig(segment_bytes=400_000, min_free_bytes=0)
SIZES = (1, 5000, 100_000, 4096, 70_000, 3, 130_001)


def store_and_read(directory: Path, groups: int = 3) -> list[int]:
    """Put groups of odd sizes down, one at a time; where each group's images ended."""
    store = open_store(directory, CONFIG)
    sizes: dict[int, int] = {}
    job = 0
    for group in range(1, groups + 1):
        for size in (*SIZES, 10)[: len(SIZES) if group % 2 else 2]:
            job += 1
            sizes[job] = size
            store.add(part(job, [job], size_bytes=size))
        store.reserve_tokens(group).result(DONE_S)
    for number, size in sizes.items():
        assert store.image(number)[1] == image(number, size)
    store.close()
    again = open_store(directory, CONFIG)
    assert all(again.image(number)[1] == image(number, size) for number, size in sizes.items())
    again.close()
    assert problems(directory) == []
    return sorted(sizes)


def test_large_and_small_groups_share_a_segment_and_survive_a_restart(tmp_path: Path) -> None:
    assert len(store_and_read(tmp_path)) == 2 * len(SIZES) + 2


def test_without_direct_writes_everything_goes_through_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("master.store.images.open_direct", lambda path: -1)
    store_and_read(tmp_path)


def test_a_filesystem_that_takes_the_flag_and_not_the_write_gets_buffered_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def refuse(self: DirectBuffer, fd: int, images: object, offset: int) -> None:
        refused.append(offset)
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(direct.DirectBuffer, "write", refuse)
    store_and_read(tmp_path)
    assert refused


@pytest.mark.parametrize("sizes", [(BLOCK_BYTES,), (1, 2, 3), (5 * BLOCK_BYTES + 7, 9, 20_000)])
def test_a_buffer_smaller_than_the_group_writes_it_whole(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    path = tmp_path / "file"
    path.touch()
    fd = open_direct(path)
    if fd < 0:
        pytest.skip("this filesystem has no direct writes")
    images = [image(number, size) for number, size in enumerate(sizes)]
    try:
        DirectBuffer(2 * BLOCK_BYTES).write(fd, images, BLOCK_BYTES)
    finally:
        os.close(fd)
    written = path.read_bytes()
    assert written[BLOCK_BYTES:].rstrip(b"\0") == b"".join(images).rstrip(b"\0")
    assert len(written) == BLOCK_BYTES + aligned(sum(sizes))
