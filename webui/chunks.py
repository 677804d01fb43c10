"""Events as `text/event-stream`, written and compressed once for all who listen.

Pure. A `Chunk` is made once a flush and shared by every client. Compressed, it
is a run of whole deflate blocks that refer to nothing before them (Z_FULL_FLUSH),
so the same bytes fit into the gzip stream of every client, whenever it began:
five hundred browsers cost one compression. Job events are a tenth of their size
compressed, and what a crowd costs is bytes through sockets.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable
from functools import cached_property

import msgspec

from webui import views
from wire import messages

# RFC 1952: magic, deflate, no flags, no time, system unknown. The trailer with the CRC never
# comes: a stream ends with its connection, and a reader that waits for one has read all events.
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
# An empty last block, byte-aligned, for the end that the server chooses.
GZIP_END = b"\x03\x00"
COMPRESSION_LEVEL = 6

_job_view = msgspec.json.Decoder(messages.JobView)


class _Named(msgspec.Struct):
    """What has an id; the rest is skipped unread."""

    id: str


_named = msgspec.json.Decoder(_Named)


class Chunk:
    """Some bytes of an event stream, plain and, once somebody wants it, compressed."""

    def __init__(self, plain: bytes) -> None:
        self.plain = plain

    @cached_property
    def packed(self) -> bytes:
        """The same as deflate blocks that stand for themselves."""
        packer = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(self.plain) + packer.flush(zlib.Z_FULL_FLUSH)

    def __add__(self, other: Chunk) -> Chunk:
        return Chunk(self.plain + other.plain)


RESET = Chunk(b"event: reset\ndata: {}\n\n")
HEARTBEAT = Chunk(b": alive\n\n")


def link(*, up: bool) -> Chunk:
    """Say whether the core is there."""
    return Chunk(b'event: core\ndata: {"up": %s}\n\n' % (b"true" if up else b"false"))


def greeting(*, retry_ms: int) -> Chunk:
    """Say after how long to come back."""
    return Chunk(b"retry: %d\n" % retry_ms)


def takes_gzip(accept_encoding: str | None) -> bool:
    """Whether a client that sent this `Accept-Encoding` reads gzip (RFC 9110 12.5.3)."""
    for entry in (accept_encoding or "").lower().split(","):
        coding, _, weight = entry.partition(";")
        if coding.strip() in {"gzip", "x-gzip", "*"}:
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def encode(events: Iterable[messages.Event]) -> Chunk:
    """Write events, each thing once, as it is after the last."""
    latest: dict[tuple[str, str], messages.Event] = {}
    numbers = itertools.count()
    for event in events:
        key = (event.kind, _subject(event) or f"#{next(numbers)}")
        latest.pop(key, None)
        latest[key] = event
    return Chunk(b"".join(_encode_one(event) for event in latest.values()))


def _subject(event: messages.Event) -> str:
    """Name what the event is about, where a later event replaces an earlier one."""
    if event.kind in {"stats", "model"}:
        return event.kind
    if event.kind not in {"job", "worker"}:
        return ""
    try:
        return _named.decode(event.data).id
    except msgspec.DecodeError:
        return ""


def _encode_one(event: messages.Event) -> bytes:
    if event.kind == "reset":
        return f"id: {event.id}\n".encode() + RESET.plain
    data = event.data
    if event.kind == "job":
        data = msgspec.json.encode(views.job(_job_view.decode(data)))
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.kind.encode(), data)
