"""What a file is, judged by its first bytes, so that a refusal can say it.

Only used to choose words and codes: whether a file is decoded is decided by
Pillow's own plugins, of which `worker.decode` opens a short list.
"""

from __future__ import annotations

from typing import Literal

SUPPORTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow's names of the formats that are decoded."""

SUPPORTED_TEXT = "JPEG, PNG, WebP, GIF, BMP and TIFF"

_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}
_MAGIC: list[tuple[int, bytes, str]] = [
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"II+\x00", "TIFF"),
    (0, b"MM\x00+", "TIFF"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"qoif", "QOI"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"DDS ", "DDS"),
    (0, b"P4", "PNM"),
    (0, b"P5", "PNM"),
    (0, b"P6", "PNM"),
]
_SVG_WITHIN_BYTES = 1024
_TAIL_BYTES = 64
_BMP_HEADER_BYTES = 26
_TIFF_HEADER_BYTES = 8


def sniff(data: bytes) -> str | None:
    """Name the image format that the first bytes promise, or None if they promise none."""
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    for offset, magic, name in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    head = data[:_SVG_WITHIN_BYTES].lstrip().lower()
    return "SVG" if head.startswith((b"<?xml", b"<svg")) and b"<svg" in head else None


def is_cut_off(data: bytes, kind: str) -> bool:
    """True if a supported format's own end mark or length says that bytes are missing."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-_TAIL_BYTES:]
    if kind == "PNG":
        return b"IEND" not in data[-_TAIL_BYTES:]
    if kind == "GIF":
        return not data.rstrip(b"\x00").endswith(b"\x3b")
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "BMP":
        return len(data) < _BMP_HEADER_BYTES or int.from_bytes(data[2:6], "little") > len(data)
    return _tiff_directory_is_beyond(data)


def _tiff_directory_is_beyond(data: bytes) -> bool:
    if len(data) < _TIFF_HEADER_BYTES:
        return True
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    big_tiff = data[2:4] in (b"+\x00", b"\x00+")
    offset = int.from_bytes(data[8:16] if big_tiff else data[4:8], order)
    return offset + 2 > len(data)
