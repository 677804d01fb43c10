"""What a weights file is, as far as its bytes tell without torch: format, hash, tensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from master.models.layout import Tensor
from master.models.safetensors import read_safetensors
from master.models.statedict import LEGACY_MAGIC, ZIP_MAGIC, read_state_dict
from wire.errors import EnvironmentFault

Format = Literal["safetensors", "torch"]
SUFFIXES: Final = (".safetensors", ".pth", ".pt")
_HEAD_BYTES: Final = 512
_LFS_POINTER: Final = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Inspection:
    """A weights file that is there and whole.

    `tensors` is None for a `torch` file whose pickle this version can't follow;
    the workers, who have torch, judge such a file.
    """

    path: Path
    format: Format
    size_bytes: int
    sha256: str
    tensors: dict[str, Tensor] | None

    @property
    def dtype(self) -> str | None:
        """The type of the floating tensors (`float16+float32` if mixed), None if not seen."""
        if not self.tensors:
            return None
        types = {tensor.dtype for tensor in self.tensors.values()}
        return "+".join(sorted({one for one in types if "float" in one} or types))

    def classes(self, classifier: str) -> int | None:
        """Rows of the classifier's weight, None where the file shows no such tensor."""
        tensor = (self.tensors or {}).get(f"{classifier}.weight")
        return tensor.shape[0] if tensor is not None and tensor.shape else None


def inspect(path: Path) -> Inspection:
    """Read what `path` is; its SHA-256 is over the whole file.

    Raises:
        EnvironmentFault: there is no such file, it can't be read, or it is no whole weights file.
    """
    try:
        size_bytes = _size_of_file(path)
        file_format = _format_of(path)
        reader = read_safetensors if file_format == "safetensors" else read_state_dict
        tensors = reader(path, size_bytes)
        return Inspection(path, file_format, size_bytes, sha256_of(path), tensors)
    except OSError as error:
        raise EnvironmentFault(
            "weights_unreadable", f"can't read the weights {path}: {error.strerror or error}"
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size_of_file(path: Path) -> int:
    if path.is_dir():
        raise EnvironmentFault("weights_are_a_directory", _directory_reason(path))
    if not path.exists():
        raise EnvironmentFault(
            "weights_missing", f"there is no weights file {path} (seen from {Path.cwd()})"
        )
    if not path.is_file():
        raise EnvironmentFault("weights_unreadable", f"{path} is not a regular file")
    return path.stat().st_size


def _directory_reason(path: Path) -> str:
    inside = sorted(one for one in path.iterdir() if one.suffix in SUFFIXES)
    hint = f"give a file inside it, such as {inside[0]}" if inside else "it holds no weights file"
    return f"{path} is a directory; {hint}"


def _format_of(path: Path) -> Format:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith((ZIP_MAGIC, LEGACY_MAGIC)):
        return "torch"
    # Byte 8 begins the JSON header of a safetensors file; the library writes no space before it.
    if head[8:9] == b"{":
        return "safetensors"
    raise EnvironmentFault(
        "not_weights", f"{path} holds no weights: {_what_it_is(head)}. Fetch it again"
    )


def _what_it_is(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head.lstrip().startswith(b"<"):
        return "it is a web page (HTML), perhaps a login or error page saved in its place"
    if head.startswith(_LFS_POINTER):
        return "it is a Git LFS pointer, not the file itself (git lfs pull)"
    if head.startswith(b"\x1f\x8b"):
        return "it is compressed (gunzip it first)"
    return f"it begins with {head[:8]!r}, as neither a safetensors file nor a torch state dict does"
