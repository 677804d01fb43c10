"""Streams of frames, most of them wrong in one way: what a fuzzer sends down a connection."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tests.fuzz.grammar import mutate, random_message
from wire import codec
from wire.framing import HEADER_BYTES, encode_frame
from wire.messages import ProtocolFault

BOMBS: Final = (
    b"\x91" * 50_000,
    b"\x81\xa1a" * 20_000,
    b"\x82\xa4type\xa7Started\xa6leases\xdd\xff\xff\xff\xff",
    b"\x82\xa4type\xa7Started\xa6leases\xdc\x10\x00" + b"\x80" * 4096,
    b"\x82\xa4type\xa6Result\xaatimings_ms\xdf\xff\xff\xff\xff",
    b"\x82\xa4type\xa4Beat\xa1x\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x82\xa4type\xa7Started\xa6leases" + b"\x91" * 50_000,
)


@functools.cache
def _types(table: codec.Vocabulary) -> list[codec.MessageType]:
    """What the table allows, less the message that ends every conversation."""
    return sorted(table.types - {ProtocolFault}, key=lambda cls: cls.__name__)


def _valid(rng: random.Random, table: codec.Vocabulary) -> bytes:
    return bytes(codec.frame(random_message(rng, rng.choice(_types(table)))))


def _any_message(rng: random.Random, table: codec.Vocabulary) -> bytes:
    """Valid, and most often not from this end."""
    return bytes(codec.frame(random_message(rng)))


def _mutated_tree(rng: random.Random, table: codec.Vocabulary) -> bytes:
    """The structure kept, one value, key or type changed."""
    tree: Any = msgspec.msgpack.decode(_valid(rng, table)[HEADER_BYTES:])
    return encode_frame(msgspec.msgpack.encode(mutate(rng, tree)))


def _extra_fields(rng: random.Random, table: codec.Vocabulary) -> bytes:
    """What a later minor version might add: to be taken."""
    tree: dict[str, Any] = msgspec.msgpack.decode(_valid(rng, table)[HEADER_BYTES:])
    return encode_frame(msgspec.msgpack.encode({**tree, "later": [1, {"x": b"y"}], "": None}))


def _flipped_bits(rng: random.Random, table: codec.Vocabulary) -> bytes:
    """A payload with some bytes changed, under a header that is right."""
    payload = bytearray(_valid(rng, table)[HEADER_BYTES:])
    for _ in range(rng.randint(1, 4)):
        payload[rng.randrange(len(payload))] = rng.randrange(256)
    return encode_frame(payload)


def _cut_payload(rng: random.Random, table: codec.Vocabulary) -> bytes:
    """A payload that ends early, or goes on for longer than its value."""
    payload = _valid(rng, table)[HEADER_BYTES:]
    if rng.random() < 0.5:
        return encode_frame(payload + rng.randbytes(rng.randint(1, 9)))
    return encode_frame(payload[: rng.randrange(1, len(payload))])


def _lying_header(rng: random.Random, table: codec.Vocabulary) -> bytes:
    """A length that is not the payload's: what follows is read at the wrong place."""
    payload = _valid(rng, table)[HEADER_BYTES:]
    length = rng.choice((0, len(payload) - 1, len(payload) + 1, 2**20, 2**26, 2**31, 2**32 - 1))
    return length.to_bytes(HEADER_BYTES, "big") + payload


def _noise(rng: random.Random, table: codec.Vocabulary) -> bytes:
    return rng.randbytes(rng.randint(1, 300))


def _framed_noise(rng: random.Random, table: codec.Vocabulary) -> bytes:
    return encode_frame(rng.randbytes(rng.randint(1, 300)))


def _bomb(rng: random.Random, table: codec.Vocabulary) -> bytes:
    return encode_frame(rng.choice(BOMBS))


Maker = Callable[[random.Random, codec.Vocabulary], bytes]
GOOD: Final[tuple[Maker, ...]] = (_valid, _valid, _extra_fields)
HOSTILE: Final[tuple[Maker, ...]] = (
    *(_mutated_tree,) * 4,
    *(_flipped_bits,) * 3,
    _any_message,
    _cut_payload,
    _lying_header,
    _noise,
    _framed_noise,
    _bomb,
)


def random_stream(
    rng: random.Random, table: codec.Vocabulary, good_max: int, hostile_frames: int
) -> bytes:
    """Up to so many frames in order, so that a session gets somewhere, and hostile ones after."""
    good = [rng.choice(GOOD)(rng, table) for _ in range(rng.randint(0, good_max))]
    hostile = [rng.choice(HOSTILE)(rng, table) for _ in range(hostile_frames)]
    return b"".join(good + hostile)
