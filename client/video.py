"""Frames of a video file as images, one every so many seconds.

Decoding is PyAV's (FFmpeg), an optional extra: this module is imported without it, and says what to
install when a video comes. Holds one decoded frame at a time, however long the video is.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import BadInput, FailedImage
from client.sources import Data, Upload, clean

SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".ogv", ".wmv"}
    | {".flv", ".3gp"}
)
EVERY_S = 1.0
EVERY_S_MIN = 0.001
JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Broken:
    """A video, or the rest of one, that can't be decoded: it fails as one image."""

    label: str
    reason: str

    def read(self, bytes_max: int) -> Upload:
        """Fails always; see `Source`."""
        raise FailedImage("unreadable", f"can't read {self.label}: {self.reason}")


@dataclass(frozen=True, slots=True)
class Video:
    """A video file: its first frame, then the first frame of every `every_s` seconds.

    A frame is named after the W3C's Media Fragments: `clip.mp4#t=00:00:01.500`.
    """

    path: str | os.PathLike[str]
    every_s: float = EVERY_S

    def frames(self) -> Iterator[Data | Broken]:
        """Decode as the caller goes on; what can't be decoded ends with a `Broken`.

        Raises:
            BadInput: PyAV isn't installed.
        """
        av = load_av()
        label = clean(str(self.path))
        try:
            with av.open(os.fspath(self.path)) as container:
                yield from self._sample(container, label)
        except (av.FFmpegError, OSError, ValueError) as fault:
            yield Broken(label, getattr(fault, "strerror", None) or str(fault))

    def _sample(self, container: Any, label: str) -> Iterator[Data | Broken]:
        if not container.streams.video:
            yield Broken(label, "it has no picture")
            return
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        began_s: float | None = None
        wanted = 0  # the next frame is the first at or after this many intervals
        for frame in container.decode(stream):
            if frame.time is None:
                continue
            began_s = frame.time if began_s is None else began_s
            at_s = frame.time - began_s
            if at_s >= wanted * self.every_s:
                wanted = int(at_s / self.every_s) + 1
                yield Data(_jpeg(frame), name=f"{label}#t={timestamp(at_s)}")
        if began_s is None:
            yield Broken(label, "it has no frame")


def is_video(path: str | os.PathLike[str]) -> bool:
    """True for a file whose name ends like a video's."""
    return Path(path).suffix.lower() in SUFFIXES


def load_av() -> Any:
    """PyAV and what it needs to give images.

    Raises:
        BadInput: with what to install.
    """
    try:
        importlib.import_module("PIL.Image")
        return importlib.import_module("av")
    except ImportError as missing:
        raise BadInput(f"{missing}: videos need it: pip install 'lookout[video]'") from None


def timestamp(at_s: float) -> str:
    """Seconds as `hh:mm:ss.mmm`."""
    minutes, ms = divmod(round(at_s * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}.{ms % 1000:03d}"


def _jpeg(frame: Any) -> bytes:
    out = io.BytesIO()
    frame.to_image().save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()
