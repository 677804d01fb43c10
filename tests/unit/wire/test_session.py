"""Two sessions joined by a fake link, and one session against what should not come."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.grammar import random_message
from tests.unit.wire.link import client, hello, opened, pieces, pump, server
from wire import codec
from wire import messages as m
from wire.errors import LocalFault, PeerFault, Rejected
from wire.framing import HANDSHAKE_FRAME_BYTES_MAX, HEADER_BYTES, encode_frame

BEAT = m.Heartbeat(seq=1, progress=0, held=0, executing=0)


def stream_of(seed: int, table: codec.Vocabulary, n: int) -> tuple[list[m.Message], bytes]:
    """Messages that the table allows, and their bytes."""
    rng = random.Random(seed)
    types = sorted(table.types, key=lambda t: t.__name__)
    messages = [random_message(rng, rng.choice(types)) for _ in range(n)]
    return messages, b"".join(map(codec.frame, messages))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 20_000), max_size=30))
def test_any_split_of_the_stream_gives_the_same_messages(seed: int, cuts: list[int]) -> None:
    _, other = opened()
    messages, stream = stream_of(seed, codec.FROM_WORKER, 12)
    got: list[m.Message] = []
    for piece in pieces(stream, cuts):
        got += other.receive(piece)
    assert got == messages


@settings(max_examples=60)
@given(st.lists(st.integers(0, 1200), max_size=30))
def test_any_split_of_the_masters_first_words_gives_the_same(cuts: list[int]) -> None:
    """Welcome, and right behind it a frame that no handshake would take."""
    one, other = client(), server()
    for data in one.data_to_send():
        other.receive(data)
    for data in other.data_to_send():
        one.receive(data)
    for data in one.data_to_send():
        other.receive(data)
    assign = m.Assign(job="j1", token=1, attempt=1, name="x", image=bytes(100_000))
    stream = b"".join([*other.data_to_send(), other.send(assign)])
    got: list[m.Message] = []
    for piece in pieces(stream, cuts):
        got += one.receive(piece)
    assert got == [assign]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 400), max_size=8), st.integers(0, 3))
def test_messages_ahead_of_a_fault_are_delivered_for_any_split(cuts: list[int], n: int) -> None:
    _, other = opened()
    stream = bytes(codec.frame(BEAT)) * n + encode_frame(b"\xc1") + bytes(codec.frame(BEAT)) * 3
    got: list[m.Message] = []
    with pytest.raises(PeerFault) as caught:
        for piece in [*pieces(stream, cuts), b"x"]:
            got += other.receive(piece)
    assert got == [BEAT] * n
    assert caught.value.code == "not_msgpack"
    assert other.fault is caught.value


def test_messages_pass_both_ways_once_open() -> None:
    one, other = opened()
    assert other.receive(one.send(BEAT)) == [BEAT]
    ack = m.HeartbeatAck(seq=1)
    assert one.receive(other.send(ack)) == [ack]
    assert one.truncation() is other.truncation() is None


def test_nothing_is_sent_before_the_handshake_is_done() -> None:
    one = client()
    with pytest.raises(LocalFault):
        one.send(BEAT)


def test_each_end_says_only_what_it_may() -> None:
    one, other = opened()
    with pytest.raises(LocalFault, match="may not send Accepted"):
        one.send(m.Accepted(job="j1", token=1))
    with pytest.raises(LocalFault, match="may not send Heartbeat"):
        other.send(BEAT)
    with pytest.raises(PeerFault, match="not_allowed"):
        other.receive(codec.frame(m.Accepted(job="j1", token=1)))


def test_a_request_before_the_handshake_is_a_fault() -> None:
    with pytest.raises(PeerFault, match="not_allowed"):
        server().receive(codec.frame(BEAT))


def test_before_the_handshake_frames_are_small() -> None:
    header = (HANDSHAKE_FRAME_BYTES_MAX + 1).to_bytes(HEADER_BYTES, "big")
    for session in (server(), client()):
        with pytest.raises(PeerFault, match="frame_too_large"):
            session.receive(header)


def test_the_announced_cap_holds_on_both_ends() -> None:
    one, other = opened(frame_bytes_max=1000)
    large = m.Goodbye(reason="x" * 1000)
    with pytest.raises(LocalFault, match="the peer takes 1000"):
        one.send(large)
    with pytest.raises(PeerFault, match="frame_too_large"):
        other.receive(codec.frame(large))


def test_a_rejected_client_hears_why() -> None:
    one, other = client("wrong"), server()
    with pytest.raises(Rejected, match="bad_token"):
        pump(one, other)
    assert one.is_rejected
    assert other.is_rejected
    assert not one.is_open
    assert not other.is_open


def test_a_rejected_client_that_goes_on_is_a_fault() -> None:
    one, other = client("wrong"), server()
    with pytest.raises(Rejected):
        pump(one, other)
    with pytest.raises(PeerFault, match="not_allowed"):
        other.receive(codec.frame(hello()))


def test_after_a_fault_nothing_is_heard() -> None:
    _, other = opened()
    with pytest.raises(PeerFault):
        other.receive(encode_frame(b"\xc1"))
    with pytest.raises(PeerFault):
        other.receive(codec.frame(BEAT))


def test_a_stream_that_ends_inside_a_frame_is_a_fault() -> None:
    one, other = opened()
    other.receive(one.send(BEAT)[:-1])
    fault = other.truncation()
    assert fault is not None
    assert fault.code == "truncated_frame"


def test_a_stream_that_ends_inside_the_handshake_is_the_clients_fault() -> None:
    fault = server().truncation()
    assert fault is not None
    assert fault.code == "handshake_incomplete"
    assert client().truncation() is None


def test_the_farewell_is_a_frame_that_the_other_end_reads() -> None:
    one, other = opened()
    (report,) = one.receive(other.farewell(PeerFault("bad_message", "r" * 9000)))
    assert isinstance(report, m.ProtocolFault)
    assert report.code == "bad_message"
