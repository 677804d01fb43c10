"""Every format that is promised, and every way in which a file can be hostile."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from worker.decode import DecodeLimits, Decoder, ImageFault, silence_pillow

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
FAR = 40
"""Lossy formats shift colours; nothing that is tested for is so close."""


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(DecodeLimits())


def halves(size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def near(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) < FAR


def code_of(decoder: Decoder, data: bytes) -> str:
    with pytest.raises(ImageFault) as caught:
        decoder.decode(data)
    assert len(caught.value.reason) < 500
    return caught.value.code


@contextlib.contextmanager
def peak_below_mib(limit: int) -> Iterator[None]:
    """Fail if resident memory ever rises by more than `limit` inside the block (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the old peak
    before_kib = _status_kib("VmRSS")
    yield
    grown_kib = _status_kib("VmHWM") - before_kib
    assert grown_kib < limit * 1024, f"memory rose by {grown_kib} KiB"


def _status_kib(key: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{key}:")[1].split()[0])


# --- what must work ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("MPO", {}),
    ],
)
def test_formats(decoder: Decoder, kind: str, options: dict[str, object]) -> None:
    image = decoder.decode(saved(halves(), kind, **options))
    assert (image.mode, image.size) == ("RGB", (64, 32))
    assert near(image.getpixel((5, 16)), RED)
    assert near(image.getpixel((58, 16)), BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA", "I;16", "LAB"])
def test_modes(decoder: Decoder, mode: str) -> None:
    light = Image.new("L", (8, 8), 255)
    source = light.convert("I").point(lambda v: v * 257) if mode == "I;16" else light
    if mode == "LAB":
        image = Image.new("LAB", (8, 8), (255, 128, 128))
    else:
        image = (
            source.convert("RGB").convert(mode) if mode in "CMYK YCbCr" else source.convert(mode)
        )
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF" if mode == "LAB" else "PNG"
    found = decoder.decode(saved(image, kind))
    assert found.mode == "RGB"
    assert near(found.getpixel((4, 4)), WHITE)


def test_the_first_frame_of_an_animation_counts(decoder: Decoder) -> None:
    frames = [Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), BLUE)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert near(decoder.decode(data).getpixel((8, 8)), RED), kind


def test_transparency_lies_over_white(decoder: Decoder) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert decoder.decode(saved(clear, "PNG")).getpixel((4, 4)) == WHITE
    assert decoder.decode(saved(clear, "WEBP", lossless=True)).getpixel((4, 4)) == WHITE
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert near(decoder.decode(saved(half, "PNG")).getpixel((4, 4)), (127, 127, 127))


def test_a_transparent_palette_entry_or_colour_lies_over_white(decoder: Decoder) -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert decoder.decode(saved(palette, "PNG", transparency=0)).getpixel((4, 4)) == WHITE
    assert decoder.decode(saved(palette, "GIF", transparency=0)).getpixel((4, 4)) == WHITE
    assert decoder.decode(saved(palette, "PNG")).getpixel((4, 4)) == (0, 0, 0)
    plain = Image.new("RGB", (8, 8), RED)
    assert decoder.decode(saved(plain, "PNG", transparency=RED)).getpixel((4, 4)) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(decoder: Decoder, kind: str) -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(1, 256).repeat(4, axis=0)
    found = np.asarray(decoder.decode(saved(Image.fromarray(ramp), kind)))[0, :, 0]
    assert np.abs(found.astype(int) - np.arange(256)).max() <= 1


def test_floats_are_read_as_fractions_bytes_or_stretched(decoder: Decoder) -> None:
    ramp = np.linspace(0.0, 1.0, 256, dtype=np.float32).reshape(1, 256)
    for scale, offset in ((1.0, 0.0), (255.0, 0.0), (4000.0, -1000.0)):
        data = saved(Image.fromarray(ramp * np.float32(scale) + np.float32(offset)), "TIFF")
        found = np.asarray(decoder.decode(data))[0, :, 0].astype(int)
        assert np.abs(found - np.arange(256)).max() <= 1, (scale, offset)


def test_floats_that_are_no_numbers_do_no_harm(decoder: Decoder) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.5]], dtype=np.float32)
    found = np.asarray(decoder.decode(saved(Image.fromarray(values), "TIFF")))[0, :, 0]
    assert found[2] == 0
    empty = np.full((1, 4), np.nan, dtype=np.float32)
    assert decoder.decode(saved(Image.fromarray(empty), "TIFF")).size == (4, 1)


def test_wide_integers_are_stretched(decoder: Decoder) -> None:
    ramp = np.linspace(-(2**30), 2**30, 256, dtype=np.int32).reshape(1, 256)
    found = np.asarray(decoder.decode(saved(Image.fromarray(ramp), "TIFF")))[0, :, 0]
    assert np.abs(found.astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(decoder: Decoder, orientation: int) -> None:
    image = Image.new("RGB", (48, 32), WHITE)
    image.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoder.decode(saved(image, "JPEG", quality=95, exif=exif))
    assert found.size == ((48, 32) if orientation < 5 else (32, 48))
    right, bottom = found.width - 5, found.height - 5
    corner = {1: (5, 5), 2: (right, 5), 3: (right, bottom), 4: (5, bottom)}
    corner |= {5: (5, 5), 6: (right, 5), 7: (right, bottom), 8: (5, bottom)}
    assert near(found.getpixel(corner[orientation]), RED)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage" * 9, b"Exif\0\0MM\0*\0\0\0\xff"])
def test_broken_exif_is_ignored(decoder: Decoder, exif: bytes) -> None:
    assert decoder.decode(saved(halves(), "JPEG", exif=exif)).size == (64, 32)


# --- what must be refused, with its code -------------------------------------------------


def test_refusals_of_things_that_are_no_images(decoder: Decoder) -> None:
    assert code_of(decoder, b"") == "empty_file"
    assert code_of(decoder, b"hello, world") == "not_an_image"
    assert code_of(decoder, bytes(10_000)) == "not_an_image"
    assert code_of(decoder, b"<html><body>404</body></html>") == "not_an_image"
    assert code_of(decoder, random.Random(1).randbytes(100_000)) == "not_an_image"


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7 ...",
        b"8BPS\0\1",
        b"\0\0\0\x20ftypheic....",
        b"\0\0\0\x20ftypavif....",
        b"<?xml version='1.0'?><svg xmlns='x'></svg>",
        saved(halves(), "JPEG2000"),
        saved(halves(), "PPM"),
        saved(halves(), "ICO"),
        saved(halves(), "AVIF"),
    ],
)
def test_formats_that_are_not_decoded_are_named(decoder: Decoder, data: bytes) -> None:
    assert code_of(decoder, data) == "unsupported_format"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_way_to_cut_a_file_off(decoder: Decoder, kind: str) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    data = saved(noise, kind)
    for share in (0.02, 0.1, 0.5, 0.9):
        code = code_of(decoder, data[: int(len(data) * share)])
        assert code in ("truncated_image", "not_an_image"), (share, code)
    assert code_of(decoder, data[: len(data) // 2]) == "truncated_image"


def test_damaged_files(decoder: Decoder) -> None:
    png = bytearray(saved(Image.effect_noise((64, 64), 80), "PNG"))
    png[len(png) // 2] ^= 0xFF
    assert code_of(decoder, bytes(png)) == "corrupt_image"
    bmp = bytearray(saved(halves(), "BMP"))
    bmp[28] = 7  # bits a pixel
    assert code_of(decoder, bytes(bmp)) == "corrupt_image"


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def huge_png() -> bytes:
    return png_header(60_000, 60_000) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))


def huge_gif() -> bytes:
    data = bytearray(saved(halves(), "GIF"))
    data[6:10] = struct.pack("<HH", 60_000, 60_000)
    return bytes(data)


def huge_frame_gif() -> bytes:
    """A small canvas with a first frame of 60,000 × 60,000."""
    data = bytearray(saved(halves(), "GIF"))
    at = data.index(b"\x2c", 13)
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    return bytes(data)


def huge_bmp() -> bytes:
    data = bytearray(saved(halves(), "BMP"))
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    return bytes(data)


def huge_jpeg() -> bytes:
    data = bytearray(saved(halves(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


def huge_tiff() -> bytes:
    data = bytearray(saved(halves(), "TIFF"))
    for tag in (256, 257):
        for kind in (3, 4):
            at = data.find(struct.pack("<HHI", tag, kind, 1))
            if at >= 0:
                data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 60_000)
    return bytes(data)


def huge_webp() -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_382).to_bytes(3, "little") * 2
    inner = saved(halves(), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body) + len(inner) + 4) + b"WEBP" + body + inner


@pytest.mark.parametrize(
    "make",
    [huge_png, huge_gif, huge_frame_gif, huge_bmp, huge_jpeg, huge_tiff, huge_webp],
)
def test_huge_headers_cost_no_memory(decoder: Decoder, make: Callable[[], bytes]) -> None:
    data = make()
    with peak_below_mib(32), pytest.raises(ImageFault) as caught:
        decoder.decode(data)
    assert caught.value.code == "image_too_large"
    assert "52,000,000" in caught.value.reason


def test_limits_are_exact_and_named() -> None:
    decoder = Decoder(DecodeLimits(pixels_max=1024, bytes_max=3000))
    assert decoder.decode(saved(Image.new("L", (32, 32)), "PNG")).size == (32, 32)
    with pytest.raises(ImageFault, match=r"33×32 = 1,056 pixels; at most 1,024"):
        decoder.decode(saved(Image.new("L", (33, 32)), "PNG"))
    with pytest.raises(ImageFault, match=r"3,001 bytes; at most 3,000"):
        decoder.decode(bytes(3001))


def test_a_bomb_in_a_png_text_chunk_is_refused_cheaply(decoder: Decoder) -> None:
    bomb = b"comment\0\0" + zlib.compress(bytes(200 * 2**20))
    data = png_header(8, 8) + png_chunk(b"zTXt", bomb) + png_chunk(b"IEND", b"")
    with peak_below_mib(32):
        assert code_of(decoder, data) in ("corrupt_image", "truncated_image")


def test_a_long_text_or_profile_in_a_good_png_does_no_harm(decoder: Decoder) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 500_000, zip=True)
    data = saved(halves(), "PNG", pnginfo=info, icc_profile=bytes(500_000))
    assert decoder.decode(data).size == (64, 32)


def test_random_damage_always_gives_an_image_or_a_code(decoder: Decoder) -> None:
    rng = random.Random(7)
    seeds = [saved(halves(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")] + [
        saved(halves().convert("P"), "GIF"),
        saved(halves().convert("CMYK"), "TIFF"),
    ]
    for _ in range(3000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        try:
            with warnings.catch_warnings():
                silence_pillow()
                assert decoder.decode(bytes(data)).mode == "RGB"
        except ImageFault as fault:
            assert fault.code in {
                "empty_file",
                "not_an_image",
                "unsupported_format",
                "image_too_large",
                "truncated_image",
                "corrupt_image",
            }
