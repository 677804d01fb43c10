"""The core is killed with work in hand: what was accepted ends exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from tests.fakes.cluster import Cluster
from tests.integration.load import all_jobs, attempts, outcomes, query, upload
from tests.shared import make_jpeg, wait_until

pytestmark = pytest.mark.integration


def _finished(http: httpx.Client) -> int:
    try:
        counts = http.get("/stats").json()["counts"]
    except (httpx.HTTPError, KeyError, ValueError):
        return -1
    return int(counts["succeeded"] + counts["failed"])


def test_all_accepted_jobs_end_once_after_kill_nine(cluster: Callable[..., Cluster]) -> None:
    faults = {"LOOKOUT_FAULTS": "delay-ms=15"}
    lookout = cluster(workers=2, worker_args=["--enable-fault-hooks", "--batch", "1"], env=faults)
    lookout.wait_ready()
    accepted: set[str] = set()
    with lookout.client() as http:
        for start in range(0, 500, 50):
            images = [(f"{n}.jpg", make_jpeg(n, (96, 96))) for n in range(start, start + 50)]
            accepted |= {job["id"] for job in upload(http, images)["jobs"]}
        wait_until(lambda: _finished(http) >= 300, 60, "300 jobs to end")
        lookout.kill_core()
        unfinished = query(lookout.data, "SELECT count(*) FROM jobs WHERE state IS NULL")[0][0]
        assert 0 < unfinished <= 200
        pids = {name: worker.pid for name, worker in lookout.workers.items()}
        lookout.restart_core()
        wait_until(lambda: _finished(http) == 500, 90, "all 500 jobs to end")
        jobs = all_jobs(http)
    assert {job["id"] for job in jobs} == accepted
    assert len(accepted) == 500
    assert outcomes(jobs) == {"succeeded": 500}
    assert all(worker.alive and worker.pid == pids[n] for n, worker in lookout.workers.items())
    rows = attempts(lookout.data)
    assert max(Counter(r["job"] for r in rows if r["outcome"] == "succeeded").values()) == 1
    tokens = [row["token"] for row in rows]
    assert len(tokens) == len(set(tokens)), "a fencing token was given twice"


def test_second_master_on_one_data_directory_is_refused(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=0, web=False)
    second = lookout.run_master("core", "--data", str(lookout.data), "--listen", "127.0.0.1:0")
    assert second.returncode == 2
    assert str(lookout.data) in second.stderr
    assert lookout.core is not None and str(lookout.core.pid) in second.stderr
    assert lookout.core.alive
