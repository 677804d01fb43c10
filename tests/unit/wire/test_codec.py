"""Messages: what may be said is decoded, everything else is a `PeerFault` with its code."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.grammar import random_message
from wire import codec
from wire import messages as m
from wire.codec import ALL_TYPES, FROM_MASTER, FROM_ROLE, FROM_WORKER, Vocabulary
from wire.errors import LocalFault, PeerFault
from wire.framing import FRAME_BYTES_MAX, HEADER_BYTES

ANYTHING = Vocabulary("a test", *ALL_TYPES.values())
BEAT = {"type": "Heartbeat", "seq": 1, "progress": 2, "held": 3, "executing": 1}
RESULT = {"type": "Result", "job": "j7", "token": 3, "model": "m"}


def packed(base: dict[str, Any] = BEAT, **changes: Any) -> bytes:
    """A message as any other implementation would send it."""
    data: bytes = msgpack.packb({**base, **changes}, use_bin_type=True)
    return data


def fault_of(payload: bytes, allowed: Vocabulary = FROM_WORKER) -> PeerFault:
    """Why it is not taken."""
    with pytest.raises(PeerFault) as caught:
        codec.decode(payload, allowed)
    return caught.value


@given(st.integers(0, 2**64))
def test_every_message_comes_back_as_it_was(seed: int) -> None:
    message = random_message(random.Random(seed))
    assert codec.decode(codec.encode(message), ANYTHING) == message
    assert codec.decode(memoryview(codec.frame(message))[HEADER_BYTES:], ANYTHING) == message


@pytest.mark.parametrize("name", sorted(ALL_TYPES))
def test_every_message_has_a_speaker(name: str) -> None:
    tables = [
        codec.HANDSHAKE_FROM_CLIENT,
        codec.HANDSHAKE_FROM_MASTER,
        *FROM_ROLE.values(),
        *FROM_MASTER.values(),
    ]
    assert any(ALL_TYPES[name] in table for table in tables)


def test_the_header_is_the_length_of_the_payload() -> None:
    message = m.Goodbye(reason="x" * 300)
    frame = codec.frame(message)
    assert int.from_bytes(frame[:HEADER_BYTES], "big") == len(frame) - HEADER_BYTES
    assert frame[HEADER_BYTES:] == codec.encode(message)


def test_an_unknown_field_is_ignored() -> None:
    message = codec.decode(packed(mood={"nested": [1, [2, {"x": b"y"}]]}), FROM_WORKER)
    assert message == m.Heartbeat(seq=1, progress=2, held=3, executing=1)


@pytest.mark.parametrize(
    ("payload", "code", "words"),
    [
        (packed(type="Hartbeat"), "unknown_type", "'Hartbeat'"),
        (packed(type="\x1b[2J\n"), "unknown_type", r"'\x1b[2J\n'"),
        (packed({"type": "Accepted", "job": "j1", "token": 1}), "not_allowed", "Accepted"),
        (packed({"type": "Shutdown", "request": 1}), "not_allowed", "a worker may not send"),
        (packed({"type": "Heartbeat", "seq": 1}), "bad_message", "missing required field"),
        (packed(seq="1"), "bad_message", "$.seq"),
        (packed(seq=1.0), "bad_message", "$.seq"),
        (packed(seq=True), "bad_message", "$.seq"),
        (packed(seq=-1), "bad_message", "$.seq"),
        (packed(seq=2**63), "bad_message", "$.seq"),
        (packed(type=3), "bad_message", "no map with a `type`"),
        (packed({"seq": 1}), "bad_message", "no map with a `type`"),
        (msgpack.packb([1, 2, 3]), "bad_message", "no map with a `type`"),
        (msgpack.packb("Heartbeat"), "bad_message", "no map with a `type`"),
        (b"\xc0", "bad_message", "no map with a `type`"),
        (packed(RESULT, job="x7"), "bad_message", "$.job"),
        (packed(RESULT, job="j7\n"), "bad_message", "$.job"),
        (packed(RESULT, token=0), "bad_message", "$.token"),
        (packed(RESULT, timings_ms={"decode": float("nan")}), "bad_message", "$.timings_ms"),
        (packed(RESULT, timings_ms={"decode": float("inf")}), "bad_message", "$.timings_ms"),
        (packed(RESULT, timings_ms={str(i): 1 for i in range(33)}), "bad_message", "<= 32"),
        (
            packed(RESULT, top5=[{"label": "x", "class_id": 1, "confidence": float("nan")}]),
            "bad_message",
            "$.top5[0].confidence",
        ),
        (packed(RESULT, top5=[{}] * 6), "bad_message", "<= 5"),
        (packed()[:-1], "not_msgpack", "truncated"),
        (packed() + b"\x00", "not_msgpack", "trailing"),
        (b"\xc1", "not_msgpack", ""),
        (b"GET / HTTP/1.1\r\n\r\n", "bad_message", "no map with a `type`"),
        (packed({"type": "Goodbye"}) + b"", "bad_message", "reason"),
    ],
)
def test_what_is_not_taken(payload: bytes, code: str, words: str) -> None:
    fault = fault_of(payload)
    assert fault.code == code
    assert words in fault.reason


def test_bad_utf8_is_no_messagepack() -> None:
    assert fault_of(b"\x81\xa4type\xa2\xff\xff").code == "not_msgpack"
    assert fault_of(b"\x82\xa4type\xa7Goodbye\xa6reason\xa1\xff").code == "not_msgpack"


def test_image_bytes_must_be_bin_and_text_must_be_str() -> None:
    assign = {"type": "Assign", "job": "j1", "token": 1, "attempt": 1, "name": "x"}
    to_worker = FROM_MASTER["worker"]
    assert fault_of(packed({**assign, "image": "text"}), to_worker).code == "bad_message"
    assert fault_of(packed({**assign, "image": b"", "name": b"x"}), to_worker).code == "bad_message"


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\xdd\x00\x00\x00\x01"])
def test_a_depth_bomb_is_refused_wherever_it_hides(opening: bytes) -> None:
    known = b"\x82\xa4type\xa7Started\xa6leases" + opening * 200_000
    unknown = b"\x83\xa4type\xa7Started\xa6leases\x90\xa1x" + opening * 200_000
    before_the_type = b"\x82\xa1x" + opening * 200_000
    for payload in (known, unknown, before_the_type):
        assert fault_of(payload).code in ("bad_message", "not_msgpack")


@pytest.mark.parametrize(
    "length", [b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x10\x00\x00", b"\xdc\x10\x01"]
)
def test_an_array_that_announces_too_much_is_refused_at_its_header(length: bytes) -> None:
    payload = b"\x82\xa4type\xa7Started\xa6leases" + length
    assert fault_of(payload).code in ("bad_message", "not_msgpack")


def test_only_an_admin_may_shut_down() -> None:
    shutdown = packed({"type": "Shutdown", "request": 1})
    assert codec.decode(shutdown, FROM_ROLE["admin"]) == m.Shutdown(request=1)
    assert fault_of(shutdown, FROM_ROLE["web"]).code == "not_allowed"


def test_handshake_messages_are_over_after_the_handshake() -> None:
    late = {m.Hello, m.Challenge, m.Proof, m.Welcome, m.Reject}
    for table in (*FROM_ROLE.values(), *FROM_MASTER.values()):
        assert not late & table.types


def test_a_message_too_large_for_any_peer_is_our_bug() -> None:
    with pytest.raises(LocalFault):
        codec.frame(m.Image(request=1, name="", media_type="", data=bytes(FRAME_BYTES_MAX)))


def test_no_field_of_any_message_takes_anything_at_all() -> None:
    """A field typed `Any` would let a small payload build a tree of objects without bound."""
    for cls in ALL_TYPES.values():
        schema = str(msgspec.inspect.type_info(cls))
        assert "AnyType" not in schema
        assert "RawType" not in schema
