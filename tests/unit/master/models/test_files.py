"""What a weights file is, told from its bytes; whatever isn't one is refused by name."""

from __future__ import annotations

import io
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st

from master.models.files import inspect
from master.models.pickles import Unfamiliar, read_pickle
from tests.unit.master.models.making import OTHER, SMALL, write_safetensors, write_torch
from wire.errors import EnvironmentFault
from worker.models import build


def refusal(path: Path) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        inspect(path)
    assert str(path) in caught.value.reason
    return caught.value


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        name: (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for name, value in state.items()
    }


def seen_shapes(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    tensors = inspect(path).tensors
    assert tensors is not None
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("architecture", [SMALL, OTHER])
def test_a_state_dict_shows_what_torch_loads(
    tmp_path: Path, architecture: str, legacy: bool
) -> None:
    path = write_torch(tmp_path / "a.pth", architecture, 7, legacy=legacy)
    assert seen_shapes(path) == shapes(torch.load(path, weights_only=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_safetensors_file_shows_what_the_library_reads(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", OTHER, 7, dtype)
    with safetensors.safe_open(path, framework="pt") as file:
        names = file.keys()
        assert seen_shapes(path) == shapes({name: file.get_tensor(name) for name in names})


def test_the_real_imagenet_squeezenet_is_seen(squeezenet_weights: Path) -> None:
    seen = inspect(squeezenet_weights)
    assert (seen.format, seen.dtype, seen.size_bytes) == ("torch", "float16", 2_488_173)
    assert seen.classes("classifier.1") == 1000
    assert seen.sha256 == "efea3d6acae260dcadfa18e840d88047c149d73de5417b646f9f116ee0fb4f99"


def test_shared_and_wrapped_parameters_are_tensors_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    weight = torch.nn.Parameter(torch.ones(5, 2))
    torch.save({"a": weight, "b": weight, "c": weight.data[1:3, :1]}, path)
    seen = inspect(path).tensors
    assert seen is not None
    assert {name: tensor.shape for name, tensor in seen.items()} == {
        "a": (5, 2),
        "b": (5, 2),
        "c": (2, 1),
    }


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.pth").code == "weights_missing"


def test_a_directory_hints_at_the_file_inside(tmp_path: Path) -> None:
    assert "holds no weights file" in refusal(tmp_path).reason
    path = write_safetensors(tmp_path / "inside.safetensors")
    fault = refusal(tmp_path)
    assert fault.code == "weights_are_a_directory"
    assert str(path) in fault.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>Please log in</html>", "web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\x1f\x8b\x08\x00rest", "compressed"),
        (b"\x89PNG\r\n\x1a\n0000", "it begins with"),
        (b"PK", "it begins with"),
    ],
)
def test_other_content_is_called_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "googlenet-1378be20.pth"
    path.write_bytes(content)
    fault = refusal(path)
    assert fault.code == "not_weights"
    assert said in fault.reason


def _zipped(path: Path) -> Path:
    return write_torch(path, classes=5)


def _legacy(path: Path) -> Path:
    return write_torch(path, classes=5, legacy=True)


@pytest.mark.parametrize("write", [_zipped, _legacy, write_safetensors])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_file_cut_off_anywhere_is_refused(
    tmp_path: Path, write: Callable[[Path], Path], share: float
) -> None:
    whole = write(tmp_path / "whole").read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert refusal(path).code in {"weights_truncated", "weights_unreadable"}


def _safetensors(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


ENTRY = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_safetensors(ENTRY, b"\0" * 9), "1 bytes follow"),
        (_safetensors(ENTRY, b"\0" * 7), "holds 7 of 8 bytes"),
        (_safetensors(ENTRY.replace(b"[0,8]", b"[1,9]"), b"\0" * 9), "expected 0"),
        (_safetensors(ENTRY.replace(b"[2]", b"[3]"), b"\0" * 8), "is given 8 bytes"),
        (_safetensors(ENTRY.replace(b"F32", b"F8_E4M3"), b"\0" * 8), "F8_E4M3"),
        (_safetensors(ENTRY.replace(b"[2]", b"[-2]"), b"\0" * 8), ">= 0"),
        (_safetensors(b'{"a":{}}', b""), "required field"),
        (_safetensors(b'{"a"', b""), "documented JSON"),
        (struct.pack("<Q", 2**60) + b"{}", "the limit is"),
    ],
)
def test_a_false_safetensors_header_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert said in refusal(path).reason


def _whole_model() -> object:
    return build(SMALL, 2)


def _training_checkpoint() -> object:
    return {"epoch": 3, "model": build(SMALL, 2).state_dict()}


def _bare_tensor() -> object:
    return torch.ones(3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_whole_model, "SqueezeNet object"),
        (_training_checkpoint, "'epoch'"),
        (_bare_tensor, "it holds"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_state_dict_is_refused(
    tmp_path: Path, make: Callable[[], object], said: str, zipped: bool
) -> None:
    path = tmp_path / "a.pth"
    torch.save(make(), path, _use_new_zipfile_serialization=zipped)
    fault = refusal(path)
    assert fault.code == "not_a_state_dict"
    assert said in fault.reason
    assert "state_dict()" in fault.reason


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.warns(DeprecationWarning):
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    assert "TorchScript" in refusal(path).reason


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, zipped: bool) -> None:
    target, path = tmp_path / "executed", tmp_path / "a.pth"
    torch.save({"weight": _Bomb(target)}, path, _use_new_zipfile_serialization=zipped)
    assert refusal(path).code == "not_a_state_dict"
    assert not target.exists()


def test_a_pickle_of_unknown_kind_is_left_to_the_workers(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2)}, path, pickle_protocol=0)
    seen = inspect(path)
    assert (seen.tensors, seen.dtype, seen.classes("a")) == (None, None, None)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_read_or_be_unfamiliar(data: bytes) -> None:
    try:
        read_pickle(io.BytesIO(data))
    except Unfamiliar:
        return


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text() | st.floats(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner, inner, inner)
    ),
    max_leaves=20,
)


@given(VALUES, st.sampled_from([2, 4]))
def test_plain_values_read_as_the_unpickler_reads_them(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert repr(read_pickle(io.BytesIO(data))) == repr(pickle.loads(data))


def test_a_tuple_nested_by_the_memo_costs_no_time() -> None:
    doubled = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(200))
    program = b"\x80\x02}" + b")" + doubled + b"K\x01s."
    began_s = time.process_time()
    with pytest.raises(Unfamiliar, match="dict key of type tuple"):
        read_pickle(io.BytesIO(program))
    assert time.process_time() - began_s < 1.0
