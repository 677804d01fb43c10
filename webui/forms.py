"""A multipart form read as it comes: bytes in, images out.

Pure. Holds at most one unfinished image; the parser is python-multipart's, the
rules (which field, how large, how many) are ours.
"""

from __future__ import annotations

import re
from typing import Any

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from webui.config import Limits
from webui.problems import Problem
from wire import messages

FIELD = "image"
NAME_CHARS_MAX = 512
TOKEN = re.compile(r"^[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,63}$")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean_name(name: str) -> str:
    """Make a name safe to show: no control or direction characters, bounded."""
    return CONTROL.sub("", name).strip()[:NAME_CHARS_MAX] or "image"


def clean_media_type(value: str) -> str:
    """Return a media type without parameters, or `application/octet-stream`."""
    media_type = value.split(";", 1)[0].strip().lower()
    return media_type if TOKEN.match(media_type) else "application/octet-stream"


class FormReader:
    """Reads one form. Feed it pieces, take the images that became whole."""

    def __init__(self, content_type: str, limits: Limits) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 200:
            raise Problem("bad_multipart", "the Content-Type has no boundary")
        self._limits = limits
        self._images: list[messages.Upload] = []
        self._count = 0
        self._ended = False
        self._reset_part()
        self._parser = python_multipart.MultipartParser(
            boundary, self._callbacks(), max_header_size=limits.form_header_bytes
        )

    def feed(self, piece: bytes) -> list[messages.Upload]:
        """Take bytes, return the images that they completed.

        Raises:
            Problem: the form is broken, or over a limit.
        """
        try:
            self._parser.write(piece)
        except FormParserError as fault:
            raise Problem("bad_multipart", str(fault)) from None
        images, self._images = self._images, []
        return images

    def finish(self) -> None:
        """Say that the body has ended.

        Raises:
            Problem: `bad_multipart`, if the form hadn't.
        """
        if not self._ended:
            raise Problem("bad_multipart", "the body ended before the form's closing boundary")

    @property
    def held_bytes(self) -> int:
        """Bytes of the image that isn't whole yet."""
        return len(self._data)

    # --- callbacks of the parser -------------------------------------------------------------

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._reset_part,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _reset_part(self) -> None:
        self._field, self._value = bytearray(), bytearray()
        self._headers: dict[str, bytes] = {}
        self._name = ""
        self._skip = False
        self._data = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise Problem(
                "unknown_field", f"the form has a field {field[:64]!r}; images go in {FIELD!r}"
            )
        filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._skip = b"filename" in options and not filename
        self._name = clean_name(filename.replace("%22", '"') or f"image {self._count + 1}")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if len(self._data) + end - start > self._limits.image_bytes:
            raise image_too_large(self._name, self._limits)
        self._data += data[start:end]

    def _on_part_end(self) -> None:
        # A browser sends a file field where nothing was chosen as an empty nameless file.
        if self._skip and not self._data:
            return
        self._count += 1
        if self._count > self._limits.request_images:
            raise Problem(
                "too_many_images", f"at most {self._limits.request_images} images a request"
            )
        media_type = clean_media_type(self._headers.get("content-type", b"").decode("latin-1"))
        self._images.append(
            messages.Upload(name=self._name, media_type=media_type, data=bytes(self._data))
        )
        self._data = bytearray()

    def _on_end(self) -> None:
        self._ended = True


def image_too_large(name: str, limits: Limits) -> Problem:
    """Say which image is too large, and the limit."""
    return Problem("image_too_large", f"{name!r} is over {limits.image_bytes} bytes")
