"""The committed table is torchvision's, and is found by name, file name and hash."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from master.models import catalogue as catalogues
from master.models.layout import Tensor
from tests.shared import REPOSITORY
from tests.tools.torchvision_table import parameters_without_memory, rendered
from tests.unit.master.models.making import state_dict
from wire.errors import EnvironmentFault
from worker.models import build
from worker.vision import import_torchvision

CATALOGUE = catalogues.load()


def test_the_committed_table_is_what_the_installed_torchvision_gives() -> None:
    for path, data in rendered().items():
        assert path.read_bytes() == data, (
            f"{path.name}: run python -m tests.tools.torchvision_table"
        )


def test_every_classifier_of_torchvision_is_known() -> None:
    models = import_torchvision().models
    assert [one.name for one in CATALOGUE] == models.list_models(module=models)
    assert len(CATALOGUE.classes) == 1000


def test_layouts_tell_all_architectures_apart() -> None:
    layouts = [one.layout for one in CATALOGUE]
    assert len(set(layouts)) == len(layouts)


@pytest.mark.parametrize(("classes", "dtype"), [(2, torch.float32), (1000, torch.float16)])
def test_a_layout_fits_whatever_the_class_count(classes: int, dtype: torch.dtype) -> None:
    for name in ("squeezenet1_1", "shufflenet_v2_x0_5", "googlenet"):
        tensors = {
            key: Tensor(dtype=str(value.dtype), shape=tuple(value.shape))
            for key, value in state_dict(name, classes, dtype).items()
        }
        assert CATALOGUE.fitting(tensors) == [name]


def test_the_names_of_old_densenet_files_fit_too() -> None:
    with parameters_without_memory():
        state = build("densenet121", 1000).state_dict()
    tensors = {
        name.replace("norm1", "norm.1")
        .replace("norm2", "norm.2")
        .replace("conv1", "conv.1")
        .replace("conv2", "conv.2"): Tensor(dtype="float32", shape=tuple(value.shape))
        for name, value in state.items()
        if "num_batches_tracked" not in name
    }
    assert any(".norm.1." in name for name in tensors)
    assert CATALOGUE.fitting(tensors) == ["densenet121"]


def test_auxiliary_heads_of_published_files_do_not_matter() -> None:
    with parameters_without_memory():
        model = import_torchvision().models.googlenet(aux_logits=True, init_weights=False)
    state = model.state_dict()
    assert any(name.startswith("aux1.") for name in state)
    tensors = {n: Tensor(dtype="float32", shape=tuple(v.shape)) for n, v in state.items()}
    assert CATALOGUE.fitting(tensors) == ["googlenet"]


def test_a_vision_transformers_input_size_does_not_matter() -> None:
    with parameters_without_memory():
        state = build("vit_b_32", 5, 384).state_dict()
    tensors = {n: Tensor(dtype="float32", shape=tuple(v.shape)) for n, v in state.items()}
    assert tensors["encoder.pos_embedding"].shape == (1, 145, 768)
    assert CATALOGUE.fitting(tensors) == ["vit_b_32"]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_card_says_what_transform_input_does_inside_the_network(name: str) -> None:
    models = import_torchvision().models
    with parameters_without_memory():
        published = models.get_model(
            name, transform_input=True, aux_logits=False, init_weights=False
        )
        plain = build(name, 1000)
    pixels = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    preset = models.get_model_weights(name).DEFAULT.transforms()
    ours = CATALOGUE.known(name).recommended.preprocessing

    theirs = _first_layer_input(published, _normalised(pixels, preset.mean, preset.std))
    seen = _first_layer_input(plain, _normalised(pixels, ours.mean, ours.std))

    assert torch.allclose(seen, theirs, atol=1e-5)
    assert not torch.allclose(_normalised(pixels, preset.mean, preset.std), theirs, atol=0.1)


class _Reached(Exception):
    """Carries what the first layer was given; the forward pass needs to go no further."""


def _first_layer_input(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    def stop(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        raise _Reached(inputs[0])

    next(model.children()).register_forward_pre_hook(stop)
    with pytest.raises(_Reached) as caught:
        model.eval()(images)
    tensor: torch.Tensor = caught.value.args[0]
    return tensor


def _normalised(pixels: torch.Tensor, mean: object, std: object) -> torch.Tensor:
    shape = (3, 1, 1)
    return (pixels - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)


def test_both_versions_of_resnet50_have_their_own_preset() -> None:
    old = CATALOGUE.published_as("resnet50-0676ba61.pth")
    new = CATALOGUE.published_with("11ad3fa6" + "0" * 56)
    assert old is not None and new is not None
    assert (old[1].name, old[1].preprocessing.resize_px) == ("IMAGENET1K_V1", 256)
    assert (new[1].name, new[1].preprocessing.resize_px) == ("IMAGENET1K_V2", 232)
    assert CATALOGUE.known("resnet50").recommended == new[1]
    assert CATALOGUE.known("resnet50").by_preference == [new[1], old[1]]


def test_unpublished_files_are_not_found() -> None:
    assert CATALOGUE.published_as("squeezenet1_1-imagenet-fp16.pth") is None
    assert CATALOGUE.published_with("0" * 64) is None


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("googlenett", "googlenet"), ("ResNet50", "resnet50"), ("resnet-18", "resnet18")],
)
def test_an_unknown_name_brings_close_ones(asked: str, meant: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        CATALOGUE.known(asked)
    assert caught.value.code == "unknown_model"
    assert f"did you mean {meant}" in caught.value.reason


def test_a_name_like_no_other_brings_no_guess() -> None:
    with pytest.raises(EnvironmentFault) as caught:
        CATALOGUE.known("zzzz")
    assert "did you mean" not in caught.value.reason
    assert "`master model list`" in caught.value.reason


def test_the_master_imports_no_torch_to_know_all_this() -> None:
    code = (
        "import sys, master.models.resolve, master.models.weights, master.models.cli\n"
        "master.models.catalogue.load()\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'worker', 'httpx', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
