"""Multipart forms, however their bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.config import Limits
from webui.forms import FormReader, clean_media_type, clean_name
from webui.problems import Problem
from wire import messages

TYPE = "multipart/form-data; boundary=edge"


def form(*parts: tuple[str, bytes]) -> bytes:
    made = b"".join(
        b'--edge\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n'
        b"Content-Type: image/png\r\n\r\n%s\r\n" % (name.encode(), data)
        for name, data in parts
    )
    return made + b"--edge--\r\n"


def read(body: bytes, cuts: list[int], limits: Limits | None = None) -> list[messages.Upload]:
    reader = FormReader(TYPE, limits or Limits())
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    images = [
        image for start, end in itertools.pairwise(places) for image in reader.feed(body[start:end])
    ]
    reader.finish()
    return images


@given(
    st.lists(st.binary(max_size=80), min_size=1, max_size=4),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_any_cut_reads_the_same(images: list[bytes], cuts: list[int]) -> None:
    body = form(*((f"{number}.png", data) for number, data in enumerate(images)))
    read_back = read(body, cuts)
    assert [image.data for image in read_back] == images
    assert [image.name for image in read_back] == [f"{n}.png" for n in range(len(images))]


@given(st.binary(max_size=300))
def test_garbage_is_a_problem_and_nothing_else(body: bytes) -> None:
    try:
        read(body, [])
    except Problem as problem:
        assert problem.status in {400, 413, 422}


def test_names_of_any_script_come_through() -> None:
    (image,) = read(form(("фото 1 – ñ.png", b"x")), [])
    assert image.name == "фото 1 – ñ.png"


def test_a_part_is_bounded() -> None:
    with pytest.raises(Problem) as problem:
        read(form(("a.png", bytes(100))), [], Limits(image_bytes=99))
    assert problem.value.code == "image_too_large"
    assert len(read(form(("a.png", bytes(100))), [], Limits(image_bytes=100))) == 1


def test_headers_of_a_part_are_bounded() -> None:
    body = b"--edge\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\nx\r\n--edge--\r\n"
    with pytest.raises(Problem) as problem:
        read(body, [])
    assert problem.value.code == "bad_multipart"


@pytest.mark.parametrize(
    ("given_name", "clean"),
    [
        ("a\r\nSet-Cookie: x.jpg", "aSet-Cookie: x.jpg"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("  ", "image"),
        ("x" * 900, "x" * 512),
    ],
)
def test_names_are_made_safe_to_show(given_name: str, clean: str) -> None:
    assert clean_name(given_name) == clean


@pytest.mark.parametrize(
    ("given_type", "clean"),
    [
        ("image/PNG; x=y", "image/png"),
        ("image/png\r\nx: y", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("a/" + "b" * 200, "application/octet-stream"),
    ],
)
def test_media_types_are_made_safe_to_send(given_type: str, clean: str) -> None:
    assert clean_media_type(given_type) == clean
