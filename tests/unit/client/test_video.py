"""Frames of real video files, made here by the library that reads them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

from client.cli import EXIT_DONE, EXIT_SOME_FAILED, EXIT_USAGE, main
from client.errors import BadInput, FailedImage
from client.sources import sources
from client.video import Broken, Video, is_video, timestamp
from tests.unit.client.server import Server

FPS = 10
SECONDS = 3
BYTES_MAX = 10**6


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three seconds; the red of a frame says its number."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(FPS * SECONDS):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (8 * number, 40, 40)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("every_s", "at"),
    [
        (1.0, ["00.000", "01.000", "02.000"]),
        (0.75, ["00.000", "00.800", "01.500", "02.300"]),  # the first frame at or after
        (60.0, ["00.000"]),
    ],
)
def test_a_frame_is_taken_every_interval(clip: Path, every_s: float, at: list[str]) -> None:
    frames = list(sources([Video(clip, every_s)]))
    assert [frame.label for frame in frames] == [f"{clip}#t=00:00:{time}" for time in at]
    reds = []
    for frame in frames:
        upload = frame.read(BYTES_MAX)
        assert upload.body.startswith(b"\xff\xd8")
        reds.append(Image.open(io.BytesIO(upload.body)).getpixel((30, 20))[0])
    wanted = [8 * round(float(time) * FPS) for time in at]
    assert all(abs(red - want) <= 12 for red, want in zip(reds, wanted, strict=True)), reds


def test_a_short_interval_takes_every_frame_once(clip: Path) -> None:
    assert len(list(Video(clip, 0.001).frames())) == FPS * SECONDS


@pytest.mark.parametrize("content", [b"", b"this is no video", None])
def test_what_is_no_video_fails_as_one_image(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    (broken,) = Video(path).frames()
    assert isinstance(broken, Broken)
    with pytest.raises(FailedImage, match=r"can't read .*clip\.mp4: \w+") as fault:
        broken.read(BYTES_MAX)
    assert fault.value.code == "unreadable"


def test_a_cut_off_video_gives_what_it_has(clip: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mpg"
    with av.open(str(clip)) as whole, av.open(str(cut), "w", format="mpegts") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(whole.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    assert 1 <= len(list(Video(cut, 0.1).frames())) < FPS * SECONDS


def test_the_table_has_timestamps_in_order(
    clip: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([str(clip), "--every", "1", "--server", server.url, "--csv", "--quiet"])
    assert status == EXIT_DONE
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [
        f"{clip}#t=00:00:0{second}.000" for second in range(SECONDS)
    ]


def test_a_broken_video_leaves_the_others_alone(
    clip: Path, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(b"no")
    arguments = [str(broken), str(clip), "--every", "9", "--server", server.url, "--csv"]
    assert main([*arguments, "--quiet"]) == EXIT_SOME_FAILED
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_without_the_extra_it_says_what_to_install(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadInput):
        list(Video(clip).frames())
    assert main([str(clip), "--server", "http://127.0.0.1:1"]) == EXIT_USAGE
    assert "pip install 'lookout[video]'" in capsys.readouterr().err


def test_names_and_times() -> None:
    assert is_video("a/B.MP4")
    assert not is_video("mp4")
    assert not is_video("clip.gif")
    assert timestamp(3723.0004) == "01:02:03.000"
    assert timestamp(59.9999) == "00:01:00.000"
