"""Without weights and internet it still recognises things, and says what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.cluster import Cluster
from tests.integration.load import upload

pytestmark = pytest.mark.integration

CIFAR10 = {
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
}


def test_up_with_no_weights_serves_the_bundled_model(
    cluster: Callable[..., Cluster], imagenet100: Path
) -> None:
    lookout = cluster(workers=1, whole=True, bundled=True)
    lookout.wait_ready(timeout_s=120)
    with lookout.client() as http:
        model = http.get("/model").json()
        assert model["id"] == "googlenet-cifar10" and model["bundled"]
        assert set(model["classes"]) == CIFAR10
        assert "ImageNet" in model["warning"]
        photographs = sorted(imagenet100.glob("*.JPEG"))[15:30]
        answer = upload(http, [(path.name, path.read_bytes()) for path in photographs])
        for job in answer["jobs"]:
            ended = http.get(f"/jobs/{job['id']}", params={"wait": 60}).json()
            assert ended["state"] == "succeeded", ended
            assert ended["model"] == "googlenet-cifar10"
            assert ended["result"]["label"] in CIFAR10
            assert len(ended["result"]["top5"]) == 5
    assert lookout.core is not None
    assert "ImageNet" in lookout.core.log()
