"""1, 60, 1,000 and 10,000 images: all succeed, and memory stays under its bound."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psutil
import pytest

from tests.fakes.cluster import Cluster
from tests.integration.load import upload, wait_submission
from tests.shared import make_jpeg, wait_until

# Stated in docs/operations.md: what core and web may each hold while uploads of any size wait.
RESIDENT_BYTES_MAX = 400 * 2**20
REQUEST_IMAGES = 500


def _tree_bytes(pid: int) -> int:
    parent = psutil.Process(pid)
    processes = [parent, *parent.children(recursive=True)]
    return max(process.memory_info().rss for process in processes)


class Watch:
    """Highest resident memory of some processes while the block runs."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.peak_bytes = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            self.peak_bytes = max(self.peak_bytes, *(_tree_bytes(pid) for pid in self._pids))


def _run(lookout: Cluster, count: int, size: tuple[int, int], timeout_s: float) -> int:
    """Upload `count` images and wait for all; the peak of resident memory."""
    images = [make_jpeg(seed % 50, size) for seed in range(50)]
    assert lookout.core is not None and lookout.web is not None
    with Watch([lookout.core.pid, lookout.web.pid]) as watch, lookout.client(600) as http:
        for start in range(0, count, REQUEST_IMAGES):
            part = range(start, min(count, start + REQUEST_IMAGES))
            answer = upload(http, [(f"{n}.jpg", images[n % 50]) for n in part])
            assert len(answer["jobs"]) == len(part)
        first = answer["submission"]
        wait_submission(http, first, wait_until, timeout_s)
        counts = http.get("/stats").json()["counts"]
    assert counts["succeeded"] == sum(counts.values())
    return watch.peak_bytes


@pytest.mark.integration
@pytest.mark.parametrize("count", [1, 60, 1_000])
def test_uploads_succeed(cluster: Callable[..., Cluster], count: int) -> None:
    lookout = cluster(workers=2)
    lookout.wait_ready()
    assert _run(lookout, count, (160, 120), timeout_s=180) < RESIDENT_BYTES_MAX


@pytest.mark.slow
def test_ten_thousand_images(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=2)
    lookout.wait_ready()
    assert _run(lookout, 10_000, (48, 48), timeout_s=900) < RESIDENT_BYTES_MAX


@pytest.mark.integration
def test_a_thousand_photographs_in_one_request_wait_on_disk(
    cluster: Callable[..., Cluster],
) -> None:
    """No worker takes them: 1,000 × 100 kB wait, and memory holds only a window of them."""
    lookout = cluster(workers=0)
    photograph = make_jpeg(7, (1800, 1400), 95)
    assert 80_000 < len(photograph) < 400_000, len(photograph)
    assert lookout.core is not None and lookout.web is not None
    with Watch([lookout.core.pid, lookout.web.pid]) as watch, lookout.client(120) as http:
        answer = upload(http, [(f"{n}.jpg", photograph) for n in range(1_000)])
        assert len(answer["jobs"]) == 1_000
        assert http.get("/stats").json()["counts"]["queued"] == 1_000
        assert http.get("/readyz").status_code in (404, 503)
    assert watch.peak_bytes < RESIDENT_BYTES_MAX, watch.peak_bytes
