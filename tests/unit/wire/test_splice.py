"""Frames from pieces say the same as frames in one buffer."""

from __future__ import annotations

import msgspec
import pytest

from wire import codec, splice
from wire import messages as m
from wire.errors import LocalFault
from wire.framing import FRAME_BYTES_MAX, HEADER, HEADER_BYTES
from wire.splice import SPLICED_BYTES_MIN, pieces

LARGE = bytes(range(256)) * (SPLICED_BYTES_MIN // 256)
LARGER = LARGE * 5
MESSAGES = [
    m.Assign(job="j1", token=7, attempt=1, name="a.jpg", image=LARGE),
    m.Assign(job="j9", token=2**62, attempt=3, name="ä" * 900, image=LARGER, alone=True,
             timeout_s=1.5),
    m.Submit(request=3, images=[m.Upload(name="", media_type="image/jpeg", data=LARGE)]),
    m.Submit(
        request=2**62,
        images=[
            m.Upload(name=f"{number}" * 200, media_type="image/png", data=data)
            for number, data in enumerate([b"", LARGE, b"x", LARGER] * 30)
        ],
        submission="s12",
        last=False,
        key="k" * 255,
        digest="0" * 64,
        timeout_s=3.25,
    ),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_the_other_end_reads_the_same_message(message: m.Message) -> None:
    cut = pieces(message)
    assert cut is not None
    frame = b"".join(cut)
    assert HEADER.unpack_from(frame)[0] == len(frame) - HEADER_BYTES
    allowed = codec.TO_WORKER if isinstance(message, m.Assign) else codec.FROM_WEB
    assert codec.decode(frame[HEADER_BYTES:], allowed) == message


@pytest.mark.parametrize("message", MESSAGES)
def test_images_are_not_copied(message: m.Message) -> None:
    images = (
        [message.image]
        if isinstance(message, m.Assign)
        else [upload.data for upload in getattr(message, "images", [])]
    )
    cut = pieces(message)
    assert cut is not None
    assert all(any(piece is image for piece in cut) for image in images)


def test_every_field_has_its_place() -> None:
    """A field that is added to a message must be added here."""
    for whole, head, rest in (
        (m.Assign, splice._Assign, {"image"}),
        (m.Submit, splice._Submit, {"images"}),
        (m.Upload, splice._Upload, {"data"}),
    ):
        names = {field.name for field in msgspec.structs.fields(head)}
        assert names | rest == {field.name for field in msgspec.structs.fields(whole)}


def test_small_images_and_other_messages_are_left_to_the_codec() -> None:
    small = bytes(SPLICED_BYTES_MIN - 1)
    upload = m.Upload(name="a", media_type="b/c", data=small)
    assert pieces(m.Assign(job="j1", token=7, attempt=1, name="a.jpg", image=small)) is None
    assert pieces(m.Submit(request=1, images=[upload] * 100)) is None
    assert pieces(m.Image(request=1, name="a", media_type="b/c", data=LARGER)) is None


def test_what_no_peer_takes_is_refused() -> None:
    image = bytes(FRAME_BYTES_MAX)
    with pytest.raises(LocalFault, match="can't be sent"):
        pieces(m.Assign(job="j1", token=7, attempt=1, name="a.jpg", image=image))
