"""The tensors that a torch state dict (`.pth`) names, found without torch and unpickled never.

Torch writes two formats: a zip with `data.pkl` (since 1.6) and, in files of
before, consecutive pickles: a magic number, a protocol version, the machine's
type sizes, then the state dict. Several of torchvision's files are of the old
kind. Workers load both with `weights_only=True`.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, Final

from master.models.layout import Tensor
from master.models.pickles import Call, Name, Reference, Unfamiliar, read_pickle
from wire.errors import EnvironmentFault

# torch.serialization.MAGIC_NUMBER, pickled with protocol 2.
LEGACY_MAGIC: Final = bytes.fromhex("80028a0a6cfc9c46f9206aa85019") + b"."
ZIP_MAGIC: Final = b"PK\x03\x04"
PICKLE_BYTES_MAX: Final = 16 * 2**20
_LEGACY_PREAMBLE: Final = 3  # magic number, protocol version, type sizes
_LEGACY_COUNT_BYTES: Final = 8
_STORAGES: Final = {
    "BoolStorage": ("bool", 1),
    "ByteStorage": ("uint8", 1),
    "CharStorage": ("int8", 1),
    "ShortStorage": ("int16", 2),
    "IntStorage": ("int32", 4),
    "LongStorage": ("int64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
}


def read_state_dict(path: Path, size_bytes: int) -> dict[str, Tensor] | None:
    """Every tensor of the state dict at `path`, or None where its pickle is unfamiliar.

    Raises:
        EnvironmentFault: the file is cut off, or holds something else than a state dict.
    """
    with path.open("rb") as file:
        legacy = file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
    try:
        value, pickle_bytes = _legacy_value(path) if legacy else (_zip_value(path), 0)
    except Unfamiliar:
        return None
    tensors, storages = _tensors(path, value)
    each_bytes = _LEGACY_COUNT_BYTES if legacy else 0
    wanted_bytes = pickle_bytes + sum(each_bytes + one for one in storages.values())
    if wanted_bytes > size_bytes:
        raise EnvironmentFault(
            "weights_truncated",
            f"{path} is cut off: its tensors need {wanted_bytes} bytes, it holds {size_bytes}. "
            "Fetch it again",
        )
    return tensors


def _legacy_value(path: Path) -> tuple[Any, int]:
    """The state dict, and where the storages begin."""
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(PICKLE_BYTES_MAX))
    for _ in range(_LEGACY_PREAMBLE):
        read_pickle(pickles)
    value = read_pickle(pickles)
    if isinstance(value, dict):
        read_pickle(pickles)  # the order of the storages, each a count and its bytes
    return value, pickles.tell()


def _zip_value(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            member = _pickle_member(path, archive)
            if member.file_size > PICKLE_BYTES_MAX:
                raise Unfamiliar(f"its pickle holds {member.file_size} bytes")
            return read_pickle(io.BytesIO(archive.read(member)))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise EnvironmentFault(
            "weights_truncated",
            f"{path} begins as a torch file and can't be read to its end ({error}): it is cut "
            "off or damaged. Fetch it again",
        ) from error


def _pickle_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = archive.infolist()
    if any("/code/" in member.filename for member in members):
        raise _not_a_state_dict(path, "it is a TorchScript program")
    for member in members:
        if member.filename.count("/") == 1 and member.filename.endswith("/data.pkl"):
            return member
    raise _not_a_state_dict(path, "it is a zip file without data.pkl")


def _tensors(path: Path, value: Any) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The named tensors, and the bytes of each storage that they share."""
    if not isinstance(value, dict):
        raise _not_a_state_dict(path, f"it holds {_kind(value)}")
    found: dict[str, Tensor] = {}
    storages: dict[str, int] = {}
    for name, item in value.items():
        if (parts := _parts(item)) is None:
            raise _not_a_state_dict(path, f"its entry {name!r} is {_kind(item)}")
        tensor, key, storage_bytes = parts
        found[str(name)] = tensor
        storages[key] = storage_bytes
    return found, storages


def _parts(item: Any) -> tuple[Tensor, str, int] | None:
    """The tensor, its storage's key and that storage's bytes."""
    match item:
        case Call(Name("torch._utils._rebuild_parameter"), (inner, *_)):
            return _parts(inner)
        case Call(
            Name("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor"),
            (Reference(("storage", Name(kind), str(key), _, int(count), *_)), _, tuple(shape), *_),
        ) if all(isinstance(size, int) for size in shape):
            dtype, item_bytes = _STORAGES.get(kind.removeprefix("torch."), ("unknown", 0))
            return Tensor(dtype=dtype, shape=shape), key, count * item_bytes
    return None


def _kind(value: Any) -> str:
    match value:
        case Call(Name(text), _) | Call(Reference(("module", Name(text), *_)), _):
            return f"a {text} object"
        case dict():
            return f"a dict with keys {', '.join(map(str, list(value)[:3]))}"
    return f"a {type(value).__name__}"


def _not_a_state_dict(path: Path, why: str) -> EnvironmentFault:
    return EnvironmentFault(
        "not_a_state_dict",
        f"{path} is not a state dict: {why}. Write the bare weights: "
        "torch.save(model.state_dict(), FILE), or safetensors.torch.save_file",
    )
