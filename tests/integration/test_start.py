"""The commands of the README, run: they start, classify, and leave nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.fakes.cluster import Cluster
from tests.shared import make_jpeg

pytestmark = pytest.mark.integration
Start = Callable[..., Cluster]


def classify(cluster: Cluster, count: int) -> list[dict[str, object]]:
    """Send `count` generated images in one request and wait for their outcomes."""
    files = [("image", (f"{n}.jpg", make_jpeg(n), "image/jpeg")) for n in range(count)]
    with cluster.client() as http:
        answer = http.post("/jobs", files=files, params={"wait": 60})
    assert answer.status_code == 200, answer.text
    jobs: list[dict[str, object]] = answer.json()["jobs"]
    return jobs


def test_the_pieces_started_one_by_one_classify(cluster: Callable[..., Cluster]) -> None:
    running = cluster(workers=2)
    running.wait_ready()
    jobs = classify(running, 8)
    assert [job["state"] for job in jobs] == ["succeeded"] * 8


def test_master_up_classifies_and_leaves_nothing_behind(cluster: Start) -> None:
    running = cluster(workers=2, whole=True)
    running.wait_ready()
    assert classify(running, 2)[0]["state"] == "succeeded"
    assert running.core is not None
    running.core.term()
    assert running.core.wait(timeout_s=30) == 0
    running.stop()


def test_master_up_ends_on_ctrl_c(cluster: Start) -> None:
    running = cluster(workers=0, whole=True)
    assert running.core is not None
    running.core.signal(signal.SIGINT)
    assert running.core.wait(timeout_s=30) == 0
    running.stop()


def test_the_printed_join_line_joins(cluster: Start) -> None:
    running = cluster(workers=0, whole=True)
    assert running.core is not None
    said = running.core.wait_line(r"worker join (\S+) --token (\S+)$", timeout_s=5)
    assert said[2] == running.token
    running.join(said[1], "--token", said[2], "--name", "other")
    running.wait_ready(1)
    assert [worker["name"] for worker in running.ready_workers()] == ["other"]
