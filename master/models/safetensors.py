"""The header of a safetensors file: names, types and shapes, without reading the tensors.

Eight bytes little-endian length, that many bytes of JSON, then the data
(https://huggingface.co/docs/safetensors, "Format"). The library's own
`safe_open` would import numpy, which the master does without.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec

from master.models.layout import Tensor
from wire.errors import EnvironmentFault

_LENGTH_BYTES: Final = 8
# The largest of torchvision's classifiers has some 1,500 tensors: about 150 kB of header.
HEADER_BYTES_MAX: Final = 16 * 2**20
_BITS: Final = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "I16": ("int16", 16),
    "I32": ("int32", 32),
    "I64": ("int64", 64),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
}
_Size = Annotated[int, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


def read_safetensors(path: Path, size_bytes: int) -> dict[str, Tensor]:
    """Every tensor that the file's header names; `size_bytes` is the file's length.

    Raises:
        EnvironmentFault: the header is no safetensors header, a tensor's type is not one
            of torch's plain types, or the file is shorter or longer than the header says.
    """
    with path.open("rb") as file:
        raw, data_bytes = _header(path, file, size_bytes)
    try:
        members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        members.pop("__metadata__", None)
        entries = {
            name: msgspec.json.decode(member, type=_Entry) for name, member in members.items()
        }
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(path, f"its header is not the documented JSON: {error}") from error
    _check_extent(path, entries, data_bytes)
    return {name: _tensor(path, name, entry) for name, entry in entries.items()}


def _header(path: Path, file: BinaryIO, size_bytes: int) -> tuple[bytes, int]:
    first = file.read(_LENGTH_BYTES)
    if len(first) < _LENGTH_BYTES:
        raise _unreadable(path, f"it holds {size_bytes} bytes, too few for a header")
    (header_bytes,) = struct.unpack("<Q", first)
    if header_bytes > HEADER_BYTES_MAX:
        raise _unreadable(
            path, f"its header would be {header_bytes} bytes long; the limit is {HEADER_BYTES_MAX}"
        )
    raw = file.read(header_bytes)
    if len(raw) < header_bytes:
        raise _torn(path, size_bytes, _LENGTH_BYTES + header_bytes)
    return raw, size_bytes - _LENGTH_BYTES - header_bytes


def _check_extent(path: Path, entries: dict[str, _Entry], data_bytes: int) -> None:
    end = 0
    for entry in sorted(entries.values(), key=lambda one: one.data_offsets):
        start, stop = entry.data_offsets
        if start != end or stop < start:
            raise _unreadable(path, f"a tensor lies at bytes {start} to {stop}, expected {end}")
        end = stop
    if end > data_bytes:
        raise _torn(path, data_bytes, end)
    if end < data_bytes:
        raise _unreadable(path, f"{data_bytes - end} bytes follow the last tensor")


def _tensor(path: Path, name: str, entry: _Entry) -> Tensor:
    if entry.dtype not in _BITS:
        raise _unreadable(path, f"tensor {name!r} is of type {entry.dtype}, which is not served")
    dtype, bits = _BITS[entry.dtype]
    tensor = Tensor(dtype=dtype, shape=entry.shape)
    held_bytes = entry.data_offsets[1] - entry.data_offsets[0]
    if tensor.elements * bits // 8 != held_bytes:
        raise _unreadable(
            path, f"tensor {name!r} {list(entry.shape)} {dtype} is given {held_bytes} bytes"
        )
    return tensor


def _unreadable(path: Path, why: str) -> EnvironmentFault:
    return EnvironmentFault(
        "weights_unreadable",
        f"{path} is not a safetensors file that Lookout can read: {why}. Write it again "
        "(safetensors.torch.save_file), or fetch it again",
    )


def _torn(path: Path, held_bytes: int, wanted_bytes: int) -> EnvironmentFault:
    return EnvironmentFault(
        "weights_truncated",
        f"{path} is cut off: it holds {held_bytes} of {wanted_bytes} bytes. Fetch it again",
    )
