"""Segment files: where bytes lie, what a crash leaves there, and what damage looks like."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from master.store import SqliteStore, StoreConfig, open_store
from master.store.check import problems
from master.store.holes import Range, merged, punch
from tests.unit.master.store.make import end, image, part
from wire.errors import EnvironmentFault

DONE_S = 20.0
CONFIG = StoreConfig(segment_bytes=10_000, min_free_bytes=0)


def filled(directory: Path, jobs: int) -> SqliteStore:
    """A store with so many jobs of 1000 bytes, ten in a segment."""
    store = open_store(directory, CONFIG)
    for job in range(1, jobs + 1):
        store.add(part(job, [job]))
    store.reserve_tokens(1).result(DONE_S)
    return store


def segments(directory: Path) -> dict[str, int]:
    """Size of each segment file."""
    found = sorted((directory / "images").iterdir())
    return {path.stem.lstrip("0"): path.stat().st_size for path in found}


def test_images_fill_one_segment_after_another(tmp_path: Path) -> None:
    store = filled(tmp_path, 25)
    assert [store.image(job)[1] for job in range(1, 26)] == [image(n) for n in range(1, 26)]
    store.close()
    assert segments(tmp_path) == {"1": 10_000, "2": 10_000, "3": 5_000}


def test_an_image_larger_than_a_segment_has_one_of_its_own(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    store.add(part(2, [2], size_bytes=30_000)).result(DONE_S)
    store.add(part(3, [3])).result(DONE_S)
    assert store.image(2)[1] == image(2, 30_000)
    store.close()
    assert segments(tmp_path)["2"] == 30_000
    assert problems(tmp_path) == []


def test_a_segment_goes_with_its_last_image(tmp_path: Path) -> None:
    store = filled(tmp_path, 25)
    for job in range(1, 26):
        store.finish(end(job))
    store.remove(range(1, 10)).result(DONE_S)
    assert set(segments(tmp_path)) == {"1", "2", "3"}
    store.remove([10, 15]).result(DONE_S)
    assert set(segments(tmp_path)) == {"2", "3"}
    store.remove(None).result(DONE_S)
    assert set(segments(tmp_path)) == {"3"}
    assert store.totals().stored_bytes == 0
    store.add(part(26, [26])).result(DONE_S)
    assert store.image(26)[1] == image(26)
    store.close()
    assert problems(tmp_path) == []


def test_removed_images_give_their_blocks_back(tmp_path: Path) -> None:
    """A segment that one image keeps alive shrinks on disk all the same."""
    (tmp_path / "probe").write_bytes(b"x" * 8192)
    with (tmp_path / "probe").open("r+b") as file:
        try:
            punch(file.fileno(), 0, 4096)
        except OSError:
            pytest.skip("this filesystem can't punch holes into files")
    store = open_store(tmp_path, StoreConfig(min_free_bytes=0))
    store.add(part(1, range(1, 31), size_bytes=50_000))
    for job in range(1, 31):
        if job != 15:
            store.finish(end(job))
    assert len(store.remove(None).result(DONE_S)) == 29
    assert store.image(15)[1] == image(15, 50_000)
    store.close()
    stat = (tmp_path / "images" / "00000001.seg").stat()
    assert stat.st_size == 30 * 50_000
    assert 50_000 <= stat.st_blocks * 512 < 100_000
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ([], []),
        ([(1, 0, 4096)], [(1, 0, 4096)]),
        ([(1, 1, 8192)], [(1, 4096, 8192)]),
        ([(1, 0, 8191)], [(1, 0, 4096)]),
        ([(1, 100, 4000), (1, 5000, 8000)], []),
        ([(1, 4000, 9000), (1, 0, 4000)], [(1, 0, 8192)]),
        ([(2, 0, 5000), (1, 0, 5000)], [(1, 0, 4096), (2, 0, 4096)]),
        ([(1, 0, 5000), (1, 9000, 20_000)], [(1, 0, 4096), (1, 12_288, 16_384)]),
    ],
)
def test_holes_are_whole_blocks_of_joined_ranges(
    removed: list[Range], expected: list[Range]
) -> None:
    assert merged(removed) == expected


def test_a_torn_tail_is_written_over(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    path = tmp_path / "images" / "00000001.seg"
    path.write_bytes(path.read_bytes() + b"half an image that nobody was told of")
    store = open_store(tmp_path, CONFIG)
    store.add(part(4, [4])).result(DONE_S)
    assert [store.image(job)[1] for job in (1, 2, 3, 4)] == [image(n) for n in (1, 2, 3, 4)]
    store.close()
    assert segments(tmp_path) == {"1": 4000}


def test_a_segment_that_no_row_knows_is_deleted(tmp_path: Path) -> None:
    filled(tmp_path, 1).close()
    stray = tmp_path / "images" / "00000002.seg"
    stray.write_bytes(b"written, never committed")
    (tmp_path / "images" / "notes.txt").write_text("not ours to delete")
    store = open_store(tmp_path, CONFIG)
    assert not stray.exists()
    assert (tmp_path / "images" / "notes.txt").exists()
    for job in range(2, 15):
        store.add(part(job, [job]))
    store.reserve_tokens(1).result(DONE_S)
    assert store.image(14)[1] == image(14)
    store.close()


def test_a_changed_byte_is_noticed_and_others_are_served(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    path = tmp_path / "images" / "00000001.seg"
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    store = open_store(tmp_path, CONFIG)
    assert store.image(1)[1] == image(1)
    with pytest.raises(EnvironmentFault, match="other bytes than were uploaded") as fault:
        store.image(2)
    assert fault.value.code == "image_corrupt"
    assert str(path) in fault.value.reason
    assert store.image(3)[1] == image(3)
    store.close()
    assert [line[:24] for line in problems(tmp_path)] == ["the image of job 2: " + str(path)[:4]]


def test_a_missing_segment_is_said_at_opening_and_on_reading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, 15).close()
    (tmp_path / "images" / "00000001.seg").unlink()
    store = open_store(tmp_path, CONFIG)
    assert "segment_damaged segment=1" in caplog.text
    with pytest.raises(EnvironmentFault, match="is gone") as fault:
        store.image(1)
    assert fault.value.code == "image_lost"
    assert store.image(15)[1] == image(15)
    store.add(part(16, [16])).result(DONE_S)
    store.close()


def test_the_checker_finds_wrong_figures(tmp_path: Path) -> None:
    filled(tmp_path, 3).close()
    assert problems(tmp_path) == []
    db = sqlite3.connect(tmp_path / "jobs.db")
    db.execute("UPDATE segments SET images = 2")
    db.execute("INSERT INTO attempts VALUES (99, 1, 'w', 'lost', 1, 1, 1, 0, NULL, '')")
    db.execute("UPDATE jobs SET offset_bytes = 1500 WHERE job = 2")
    db.commit()
    db.close()
    found = "\n".join(problems(tmp_path))
    assert "segment 1 says 2 images" in found
    assert "1 attempts belong to no job" in found
    assert "the image of job 2" in found
    assert "job 3 overlaps" in found
