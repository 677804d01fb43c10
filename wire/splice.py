"""Frames whose images are not copied: a head, the image itself, the next head, and so on.

An image of 100 kB that is encoded into a frame is copied once, into memory that is
fresh each time. The few messages that carry images are put together from pieces
instead, and the kernel gathers them. What arrives is the same MessagePack map with its
fields in another order, which MessagePack leaves open.
"""

from __future__ import annotations

import struct

import msgspec

from wire import messages as m
from wire.framing import HEADER, HEADER_BYTES, check_outgoing

SPLICED_BYTES_MIN = 16 * 2**10
"""Smaller images are copied: a piece costs more than it saves."""
Piece = bytes | bytearray | memoryview

_FIXMAP = 0x80
_BIN32 = struct.Struct(">BI")
_ARRAY32 = struct.Struct(">BI")
_ENCODER = msgspec.msgpack.Encoder()


class _Assign(msgspec.Struct, frozen=True, tag_field="type", tag="Assign"):
    """`Assign` without its image."""

    job: str
    token: int
    attempt: int
    name: str
    alone: bool
    timeout_s: float | None


class _Submit(msgspec.Struct, frozen=True, tag_field="type", tag="Submit"):
    """`Submit` without its images."""

    request: int
    submission: str | None
    last: bool
    key: str | None
    digest: str | None
    timeout_s: float | None
    patient: bool


class _Upload(msgspec.Struct, frozen=True):
    """`Upload` without its data."""

    name: str
    media_type: str


def pieces(message: m.Message) -> list[Piece] | None:
    """The frame of a message with large images, header included; None for all others.

    Raises:
        LocalFault: it is larger than any peer takes.
    """
    if type(message) is m.Assign:
        return _assign(message) if len(message.image) >= SPLICED_BYTES_MIN else None
    if type(message) is m.Submit:
        large = any(len(upload.data) >= SPLICED_BYTES_MIN for upload in message.images)
        return _submit(message) if large else None
    return None


def _assign(message: m.Assign) -> list[Piece]:
    head = _Assign(
        message.job, message.token, message.attempt, message.name, message.alone, message.timeout_s
    )
    first = _open_map(head, HEADER_BYTES)
    first += b"\xa5image" + _BIN32.pack(0xC6, len(message.image))
    return _framed([first, message.image])


def _submit(message: m.Submit) -> list[Piece]:
    head = _Submit(
        message.request,
        message.submission,
        message.last,
        message.key,
        message.digest,
        message.timeout_s,
        message.patient,
    )
    last = _open_map(head, HEADER_BYTES)
    last += b"\xa6images" + _ARRAY32.pack(0xDD, len(message.images))
    all_pieces: list[Piece] = []
    for upload in message.images:
        last += _open_map(_Upload(upload.name, upload.media_type), 0)
        last += b"\xa4data" + _BIN32.pack(0xC6, len(upload.data))
        all_pieces += (last, upload.data)
        last = bytearray()
    return _framed(all_pieces)


def _open_map(head: msgspec.Struct, offset: int) -> bytearray:
    """A small map from `offset`, with room for one more entry that the caller appends."""
    buffer = bytearray(offset)
    _ENCODER.encode_into(head, buffer, offset)
    assert _FIXMAP < buffer[offset] < _FIXMAP + 15, "the heads are maps of a few fields"
    buffer[offset] += 1
    return buffer


def _framed(all_pieces: list[Piece]) -> list[Piece]:
    payload_bytes = sum(map(len, all_pieces)) - HEADER_BYTES
    check_outgoing(payload_bytes)
    first = all_pieces[0]
    assert isinstance(first, bytearray)
    HEADER.pack_into(first, 0, payload_bytes)
    return all_pieces
