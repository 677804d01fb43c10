"""Where images come from: files, folders that are walked lazily, URLs, bytes.

A source is a name until it is read; `read` gives the body of its submission.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable
from urllib.parse import urlsplit

import msgspec

from client.errors import FailedImage

# What a folder is searched for. A file that is named itself is sent whatever it is called.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
)
_OCTETS = "application/octet-stream"

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | File | Url | Data | Unlisted | Frames"


@dataclass(frozen=True, slots=True)
class Upload:
    """The body of one submission. `name` goes beside it, None where the body holds it."""

    body: bytes
    media_type: str
    name: str | None


class Source(Protocol):
    """One image, not read yet. `label` is what the caller knows it by."""

    @property
    def label(self) -> str:
        """Path, URL or name."""

    def read(self, bytes_max: int) -> Upload:
        """Read it.

        Raises:
            FailedImage: it can't be read, is empty, or has over `bytes_max` bytes.
        """


@runtime_checkable
class Frames(Protocol):
    """Something that holds many images, as `client.video.Video` does."""

    def frames(self) -> Iterator[Source]:
        """The images, lazily."""


@dataclass(frozen=True, slots=True)
class File:
    """A file on this machine."""

    path: Path

    @property
    def label(self) -> str:
        """The path as it was given."""
        return clean(str(self.path))

    def read(self, bytes_max: int) -> Upload:
        """Read the file, at most `bytes_max` bytes of it; see `Source`."""
        try:
            body = _read_regular(self.path, bytes_max)
        except OSError as error:
            reason = f"can't read {self.label}: {error.strerror or error}"
            raise FailedImage("unreadable", reason) from error
        checked = _check_size(body, self.label, bytes_max)
        return Upload(checked, media_type(self.path.name), clean(self.path.name))


@dataclass(frozen=True, slots=True)
class Url:
    """An image that the server fetches."""

    url: str

    @property
    def label(self) -> str:
        """The URL."""
        return clean(self.url)

    def read(self, bytes_max: int) -> Upload:
        """Nothing is read here: the server fetches, within its own limits."""
        return Upload(msgspec.json.encode({"url": self.label}), "application/json", None)


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes in memory."""

    body: bytes
    name: str = "image"

    @property
    def label(self) -> str:
        """The name."""
        return clean(self.name)

    def read(self, bytes_max: int) -> Upload:
        """Check the bytes; see `Source`."""
        checked = _check_size(self.body, self.label, bytes_max)
        return Upload(checked, media_type(self.name), self.label)


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder that can't be listed: it fails as one image, and the walk goes on."""

    path: Path
    reason: str

    @property
    def label(self) -> str:
        """The folder's path."""
        return clean(str(self.path))

    def read(self, bytes_max: int) -> Upload:
        """Fails always; see `Source`."""
        raise FailedImage("unreadable", f"can't list {self.label}: {self.reason}")


def sources(images: Iterable[object], *, recursive: bool = False) -> Iterator[Source]:
    """Sources of paths, folders, URLs, bytes and sources; lazily, one at a time.

    Raises:
        TypeError: something else is among them.
    """
    for image in images:
        yield from _source(image, recursive)


def _source(image: object, recursive: bool) -> Iterator[Source]:
    if isinstance(image, File | Url | Data | Unlisted):
        yield image
    elif isinstance(image, bytes | bytearray | memoryview):
        yield Data(bytes(image))
    elif isinstance(image, Frames):
        yield from image.frames()
    elif isinstance(image, str) and is_url(image):
        yield Url(image)
    elif isinstance(image, str | os.PathLike):
        path = Path(os.fsdecode(image))
        yield from (walk(path, recursive=recursive) if path.is_dir() else [File(path)])
    else:
        kind = type(image).__name__
        raise TypeError(f"{kind} is no image: give a path, a URL, bytes, Data or Video")


def is_url(text: str) -> bool:
    """True for http and https URLs; anything else is a path."""
    return text.lower().startswith(("http://", "https://")) and bool(urlsplit(text).netloc)


def walk(folder: Path, *, recursive: bool) -> Iterator[File | Unlisted]:
    """Images of a folder in the order of the file system, hidden files left out.

    Nothing is held but the open folders from the top down to here, so a folder may hold any
    number of files. Links to folders are not followed: they may form a circle.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield from _entry(entry, recursive)
    except OSError as error:
        yield Unlisted(folder, error.strerror or str(error))


def _entry(entry: os.DirEntry[str], recursive: bool) -> Iterator[File | Unlisted]:
    if entry.name.startswith("."):
        return
    if entry.is_dir(follow_symlinks=False):
        if recursive:
            yield from walk(Path(entry.path), recursive=True)
    elif Path(entry.name).suffix.lower() in SUFFIXES and not entry.is_dir():
        yield File(Path(entry.path))


def media_type(name: str) -> str:
    """`image/…` by the suffix; the server looks at the bytes anyway."""
    guessed = mimetypes.guess_type(name, strict=False)[0] or _OCTETS
    return guessed if guessed.startswith("image/") else _OCTETS


def clean(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes of a file name that are none become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_regular(path: Path, bytes_max: int) -> bytes:
    # O_NONBLOCK: opening a pipe that nobody writes to would block for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(0, "it is a folder")
        if not stat.S_ISREG(mode):
            raise OSError(0, "it is no regular file; use '-' to read an image from stdin")
        return file.read(bytes_max + 1)


def _check_size(body: bytes, label: str, bytes_max: int) -> bytes:
    if not body:
        raise FailedImage("empty", f"{label} is empty; send an image file")
    if len(body) > bytes_max:
        raise FailedImage(
            "image_too_large",
            f"{label} has over {bytes_max} bytes; make it smaller, or raise the limit here "
            "(--image-bytes-max) and on the server",
        )
    return body
