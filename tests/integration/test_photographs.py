"""100 real photographs through HTTP and two workers, against labels and the bare model."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes.cluster import Cluster
from tests.integration.load import all_jobs, upload, wait_submission
from tests.shared import wait_until
from worker.models import card_for_torchvision, load_model
from worker.vision import import_torchvision

pytestmark = pytest.mark.integration


def _labels(folder: Path) -> dict[str, int]:
    with (folder / "labels.csv").open(newline="") as file:
        return {row["file"]: int(row["class_id"]) for row in csv.DictReader(file)}


def _bare_model(folder: Path, weights: Path, names: list[str]) -> dict[str, list[int]]:
    """Torchvision itself, one image at a time: its preset, its model, these weights."""
    import torch

    torchvision = import_torchvision()
    card = card_for_torchvision("squeezenet1_1", weights)
    model = load_model(card, weights)
    preset = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    best: dict[str, list[int]] = {}
    with torch.inference_mode():
        for name in names:
            pixels = preset(Image.open(folder / name).convert("RGB")).unsqueeze(0)
            logits = model(pixels)[0].numpy()
            best[name] = [int(index) for index in np.argsort(-logits)[:5]]
    return best


def test_hundred_photographs_like_the_bare_model(
    cluster: Callable[..., Cluster], imagenet100: Path, squeezenet_weights: Path
) -> None:
    lookout = cluster(workers=2, weights=squeezenet_weights)
    lookout.wait_ready()
    labels = _labels(imagenet100)
    with lookout.client() as http:
        images = [(name, (imagenet100 / name).read_bytes()) for name in labels]
        answer = upload(http, images)
        submission = wait_submission(http, answer["submission"], wait_until, timeout_s=120)
        assert submission["counts"]["succeeded"] == len(labels) == 100
        jobs = all_jobs(http, submission=answer["submission"])
    served = {job["name"]: [guess["class_id"] for guess in job["result"]["top5"]] for job in jobs}
    top1 = sum(served[name][0] == label for name, label in labels.items())
    top5 = sum(label in served[name] for name, label in labels.items())
    assert abs(top1 - 69) <= 1, top1
    assert abs(top5 - 89) <= 1, top5
    bare = _bare_model(imagenet100, squeezenet_weights, list(labels))
    assert {name: ids[0] for name, ids in served.items()} == {
        name: ids[0] for name, ids in bare.items()
    }
    assert served == bare
    assert {job["worker"] for job in jobs} == {"w1", "w2"}
    assert all(0.0 < sum(g["confidence"] for g in job["result"]["top5"]) <= 1.0 for job in jobs)
