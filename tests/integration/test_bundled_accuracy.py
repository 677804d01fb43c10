"""5,000 images that training never saw: through the cluster, and by torchvision alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import master
from tests.fakes.cluster import Cluster
from tests.integration.load import all_jobs, upload, wait_submission
from tests.shared import CIFAR10_TEST, need_shared, wait_until
from worker.vision import import_torchvision

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

BUNDLED = Path(master.__file__).parent / "bundled" / "googlenet-cifar10.safetensors"
UPLOAD_IMAGES = 500
BATCH_IMAGES = 250


def test_cluster_and_direct_evaluation_agree_to_the_image(
    cluster: Callable[..., Cluster],
) -> None:
    images = _images(need_shared(CIFAR10_TEST))
    card = msgspec.json.decode(BUNDLED.with_suffix(".json").read_bytes())
    lookout = cluster(workers=2, bundled=True, worker_args=("--engine", "torch"))
    lookout.wait_ready()
    served = _through_cluster(lookout, images)
    direct = dict(zip((name for name, _ in images), _directly(card, images), strict=True))
    assert len(served) == len(images) == 5_000
    assert {n for n in served if served[n] != direct[n]} == set()
    right = sum(label == name.split("/")[-2] for name, label in served.items())
    print(f"{right} of {len(images)} right, through the cluster and directly")
    assert right / len(images) == pytest.approx(card["accuracy"]["cifar10-test"], abs=1e-9)


def _images(archive: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        return [(member.name, tar.extractfile(member).read()) for member in members]  # type: ignore[union-attr]


def _through_cluster(lookout: Cluster, images: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    labels = {}
    with lookout.client(timeout_s=120) as http:
        for start in range(0, len(images), UPLOAD_IMAGES):
            part = images[start : start + UPLOAD_IMAGES]
            # The form's name is the index: a browser's file name has no folders.
            answer = upload(http, [(str(start + n), data) for n, (_, data) in enumerate(part)])
            wait_submission(http, answer["submission"], wait_until, timeout_s=120)
            for job in all_jobs(http, submission=answer["submission"]):
                assert job["state"] == "succeeded", job
                labels[images[int(job["name"])][0]] = job["result"]["label"]
    return labels


def _directly(card: dict[str, Any], images: Sequence[tuple[str, bytes]]) -> Iterator[str]:
    """Torchvision's transforms and model, as its documentation composes them; no code of ours."""
    torchvision = import_torchvision()
    transforms = torchvision.transforms
    how = card["preprocessing"]
    prepare = transforms.Compose(
        [
            transforms.Resize(how["resize_px"]),
            transforms.CenterCrop(how["crop_px"]),
            transforms.ToTensor(),
            transforms.Normalize(how["mean"], how["std"]),
        ]
    )
    model = torchvision.models.googlenet(
        num_classes=len(card["classes"]), aux_logits=False, init_weights=False
    )
    state = {name: value.float() for name, value in load_file(BUNDLED).items()}
    model.load_state_dict(state)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_IMAGES):
            part = images[start : start + BATCH_IMAGES]
            pixels = [prepare(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in part]
            best = np.asarray(model(torch.stack(pixels)).argmax(1))
            yield from (card["classes"][index] for index in best)
