"""What becomes an image: paths, folders, URLs, bytes."""

from __future__ import annotations

import json
import os
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

import client.sources
from client.errors import FailedImage
from client.sources import Data, File, Unlisted, Url, is_url, media_type, sources, walk

MAX = 1000


def names(found: object) -> set[str]:
    """Labels of sources, by their last part."""
    assert hasattr(found, "__iter__")
    return {Path(source.label).name for source in found}


def test_a_folder_gives_its_visible_images(tmp_path: Path) -> None:
    for name in ("a.jpg", "B.PNG", "c.txt", ".hidden.jpg", "labels.csv", "d.tiff"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("deep", ".hidden", "folder.jpg"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "e.webp").write_bytes(b"x")
    (tmp_path / "deep" / "circle").symlink_to(tmp_path)
    (tmp_path / "link.gif").symlink_to(tmp_path / "a.jpg")
    assert names(sources([tmp_path])) == {"a.jpg", "B.PNG", "d.tiff", "link.gif"}
    found = list(sources([str(tmp_path)], recursive=True))
    assert len(found) == 6
    assert names(found) == {"a.jpg", "B.PNG", "d.tiff", "link.gif", "e.webp"}


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / ".photo").write_bytes(b"bytes")
    (source,) = sources([tmp_path / ".photo"])
    upload = source.read(MAX)
    assert (upload.body, upload.media_type, upload.name) == (
        b"bytes",
        "application/octet-stream",
        ".photo",
    )


def test_a_walk_holds_no_list_of_files(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"x")
    for number in range(1, 5_000):
        (tmp_path / f"{number}-{'n' * 100}.png").hardlink_to(tmp_path / "0.png")
    walking = walk(tmp_path, recursive=True)
    tracemalloc.start()
    before = sum(1 for _ in islice(walking, 2_500))
    # What the module itself holds: pathlib interns names, in a table that grows by leaps.
    ours = tracemalloc.Filter(True, client.sources.__file__)
    held = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
    tracemalloc.stop()
    assert before + sum(1 for _ in walking) == 5_000
    held_bytes = sum(one.size for one in held)
    assert 0 < held_bytes < 50_000, "5,000 names of 100 bytes must not be held"


def test_a_folder_that_went_away_is_one_failure(tmp_path: Path) -> None:
    (source,) = walk(tmp_path / "gone", recursive=True)
    assert isinstance(source, Unlisted)
    with pytest.raises(FailedImage, match=r"can't list .*gone: No such file"):
        source.read(MAX)


def test_urls_go_to_the_server(tmp_path: Path) -> None:
    (source,) = sources(["https://example.org/fox.jpg"])
    assert isinstance(source, Url)
    upload = source.read(MAX)
    assert upload.media_type == "application/json" and upload.name is None
    assert json.loads(upload.body) == {"url": "https://example.org/fox.jpg"}


@pytest.mark.parametrize("text", ["HTTP://h/x", "https://h"])
def test_what_is_a_url(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize("text", ["http:", "http://", "ftp://h/x", "file:///x", "a.jpg", "http"])
def test_what_is_a_path(text: str) -> None:
    assert not is_url(text)


def test_bytes_of_every_kind() -> None:
    for data in (b"xy", bytearray(b"xy"), memoryview(b"xy"), Data(b"xy", "n.gif")):
        (source,) = sources([data])
        assert source.read(MAX).body == b"xy"


def test_limits_are_told_with_value_and_next_step(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(b"x" * (MAX + 1))
    for source in (File(path), Data(b"x" * (MAX + 1), "large.png")):
        with pytest.raises(FailedImage, match=r"large\.png has over 1000 bytes.*--image-bytes"):
            source.read(MAX)
    path.write_bytes(b"x" * MAX)
    assert len(File(path).read(MAX).body) == MAX


def test_pipes_devices_and_folders_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path, "folder"),
    ):
        with pytest.raises(FailedImage, match=said):
            File(path).read(MAX)


def test_a_name_that_is_no_utf8_can_be_sent_and_shown(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(path)).write_bytes(b"x")
    (source,) = sources([tmp_path])
    assert source.label.endswith("caf\ufffd.jpg")
    upload = source.read(MAX)
    assert upload.name == "caf\ufffd.jpg" and upload.body == b"x"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", "image/jpeg"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.html", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_media_types(name: str, kind: str) -> None:
    assert media_type(name) == kind
