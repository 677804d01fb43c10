"""State dicts in files: read without executing anything, written atomically.

Two formats: `safetensors`, and `torch` (a pickle read with `weights_only=True`,
which builds tensors and containers and calls nothing else).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wire.errors import EnvironmentFault

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Torchvision's DenseNet files carry names that Python modules may no longer have
# (torchvision/models/densenet.py, `_load_state_dict`).
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def format_of(path: Path) -> str:
    """`safetensors` or `torch`, by the file's suffix."""
    return "safetensors" if path.suffix == ".safetensors" else "torch"


def read_state(path: Path, file_format: str) -> OrderedDict[str, torch.Tensor]:
    """Read every tensor of a checkpoint, on the CPU, in the precision of the file.

    Raises:
        EnvironmentFault: the file is missing, damaged, of another format, or
            holds something else than named tensors.
    """
    reasons = (OSError, SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile)
    try:
        loaded = _load(path, file_format)
    except (*reasons, RuntimeError, ValueError, EOFError, KeyError) as fault:
        raise EnvironmentFault(
            "weights_unreadable",
            f"{path} cannot be read as {file_format}: {_first_line(fault)}; a checkpoint is a"
            " safetensors file or a state dict stored by torch.save",
        ) from fault
    if not isinstance(loaded, Mapping) or not loaded:
        raise _no_state_dict(path, type(loaded).__name__)
    strangers = [f"{k}: {type(v).__name__}" for k, v in loaded.items() if not _is_tensor(k, v)]
    if strangers:
        raise _no_state_dict(path, ", ".join(strangers[:5]))
    return _with_new_names(loaded)


def write_state(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Store tensors as safetensors, replacing `path` atomically."""
    with replacing(path) as temporary:
        plain = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        save_file(plain, temporary, metadata={"format": "pt"})


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`; once it is filled and on disk, it takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path, file_format: str) -> object:
    if file_format == "safetensors":
        return load_file(path)
    if file_format == "torch":
        return torch.load(path, map_location="cpu", weights_only=True)
    raise ValueError(f"unknown format {file_format!r}")


def _is_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor)


def _with_new_names(state: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """The same tensors under today's names; module versions (`_metadata`) are kept.

    Torch's modules convert older layouts of themselves by those versions.
    """
    renamed = OrderedDict((_OLD_DENSENET.sub(r"\1\2", key), v) for key, v in state.items())
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        renamed._metadata = versions  # type: ignore[attr-defined]
    return renamed


def _first_line(fault: BaseException) -> str:
    return str(fault).splitlines()[0] if str(fault) else type(fault).__name__


def _no_state_dict(path: Path, found: str) -> EnvironmentFault:
    return EnvironmentFault(
        "no_state_dict",
        f"{path} is no plain state dict (found {found}); store model.state_dict() itself",
    )
