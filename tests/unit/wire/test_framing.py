"""Frames: any split decodes the same, nothing is taken before its length is judged."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.link import pieces
from wire.errors import LocalFault, PeerFault
from wire.framing import (
    FIRST_ALLOCATION_BYTES,
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    SCRATCH_BYTES,
    FrameDecoder,
    Payload,
    encode_frame,
)

LENGTHS = (1, 2, 100, SCRATCH_BYTES - 5, SCRATCH_BYTES - 4, SCRATCH_BYTES - 3, SCRATCH_BYTES + 1)


def payload(length: int, seed: int) -> bytes:
    """Bytes that differ between frames and along a frame."""
    return bytes((seed + i) % 251 for i in range(length))


def read_through_buffer(decoder: FrameDecoder, data: bytes, at_most: int) -> list[Payload]:
    """As a shell does: `recv_into` fills no more than the buffer, and often less."""
    frames: list[Payload] = []
    rest = memoryview(data)
    while rest:
        buffer = decoder.get_buffer(-1)
        n = min(len(buffer), len(rest), at_most)
        assert n > 0
        buffer[:n] = rest[:n]
        rest = rest[n:]
        frames += decoder.buffer_updated(n)
    return frames


@given(
    st.lists(st.sampled_from(LENGTHS), max_size=6),
    st.lists(st.integers(0, 6 * SCRATCH_BYTES), max_size=20),
)
def test_any_split_decodes_the_same(lengths: list[int], cuts: list[int]) -> None:
    sent = [payload(length, seed) for seed, length in enumerate(lengths)]
    stream = b"".join(map(encode_frame, sent))
    decoder = FrameDecoder(FRAME_BYTES_MAX)
    got: list[Payload] = []
    for piece in pieces(stream, cuts):
        got += decoder.feed(piece)
    # Compared at the end: a payload handed out early must not have been overwritten.
    assert got == sent
    assert decoder.pending_bytes == 0


@given(st.lists(st.sampled_from(LENGTHS), max_size=6), st.integers(1, 3 * SCRATCH_BYTES))
def test_reads_of_any_size_decode_the_same(lengths: list[int], at_most: int) -> None:
    sent = [payload(length, seed) for seed, length in enumerate(lengths)]
    stream = b"".join(map(encode_frame, sent))
    decoder = FrameDecoder(FRAME_BYTES_MAX)
    # A read of one byte at a time through 200 kB is slow, not different.
    assert read_through_buffer(decoder, stream, max(at_most, len(stream) // 2000 + 1)) == sent


def test_one_byte_at_a_time() -> None:
    sent = [payload(300, 1), payload(1, 2), payload(7, 3)]
    got = read_through_buffer(FrameDecoder(1000), b"".join(map(encode_frame, sent)), 1)
    assert got == sent


def test_a_large_frame_grows_and_arrives_whole() -> None:
    sent = payload(3 * FIRST_ALLOCATION_BYTES + 17, 5)
    got = read_through_buffer(FrameDecoder(2**20), encode_frame(sent) * 2, 100_000)
    assert got == [sent, sent]


def test_the_cap_itself_is_taken() -> None:
    assert FrameDecoder(100).feed(encode_frame(b"x" * 100)) == [b"x" * 100]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"\x00\x00\x00\x00", "empty_frame"),
        (b"\x00\x00\x00\x65", "frame_too_large"),
        (b"\xff\xff\xff\xff", "frame_too_large"),
        (b"GET ", "frame_too_large"),
    ],
)
def test_a_bad_length_is_a_fault(header: bytes, code: str) -> None:
    decoder = FrameDecoder(100)
    with pytest.raises(PeerFault) as caught:
        decoder.feed(header)
    assert caught.value.code == code


def test_frames_ahead_of_a_bad_length_are_handed_out_and_then_it_raises() -> None:
    decoder = FrameDecoder(100)
    assert decoder.feed(encode_frame(b"good") + b"\xff\xff\xff\xff" + b"junk" * 9) == [b"good"]
    for _ in range(2):
        with pytest.raises(PeerFault):
            decoder.feed(b"more")


def test_an_announced_frame_costs_what_arrived_of_it() -> None:
    decoder = FrameDecoder(FRAME_BYTES_MAX)
    header = FRAME_BYTES_MAX.to_bytes(HEADER_BYTES, "big")
    tracemalloc.start()
    decoder.feed(header + b"x" * 1000)
    announced, _ = tracemalloc.get_traced_memory()
    for _ in range(10):
        decoder.feed(b"x" * 100_000)
    arrived, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert announced < FIRST_ALLOCATION_BYTES + 10_000
    assert arrived < 2 * 1_001_000 + 100_000
    assert decoder.announced_bytes == FRAME_BYTES_MAX
    assert decoder.pending_bytes == HEADER_BYTES + 1_001_000


def test_the_cap_may_change_before_the_next_frame_is_asked_for() -> None:
    decoder = FrameDecoder(10)
    data = encode_frame(b"small") + encode_frame(b"x" * 50)
    decoder.get_buffer()[: len(data)] = data
    decoder.received(len(data))
    assert decoder.next_frame() == b"small"
    decoder.frame_bytes_max = 50
    assert decoder.next_frame() == b"x" * 50


def test_pending_and_announced_bytes_of_a_small_frame() -> None:
    decoder = FrameDecoder(1000)
    decoder.feed(b"\x00\x00")
    assert (decoder.pending_bytes, decoder.announced_bytes) == (2, 0)
    decoder.feed(b"\x00\x09abc")
    assert (decoder.pending_bytes, decoder.announced_bytes) == (7, 9)
    assert decoder.feed(b"defghi") == [b"abcdefghi"]
    assert (decoder.pending_bytes, decoder.frames_decoded) == (0, 1)


def test_what_no_peer_would_take_is_not_encoded() -> None:
    with pytest.raises(LocalFault):
        encode_frame(b"")
    with pytest.raises(LocalFault):
        encode_frame(memoryview(bytearray(FRAME_BYTES_MAX + 1)))
