"""Promises around a job's life: cancel, deadline, full queue, shutdown, bad images, bad peers."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import httpx
import pytest

from tests.fakes.cluster import Cluster
from tests.integration.load import all_jobs, attempts, outcomes, query, upload
from tests.shared import make_jpeg, wait_until

pytestmark = pytest.mark.integration

SLOW = {"LOOKOUT_FAULTS": "delay-ms=400"}
SLOW_WORKER = ["--enable-fault-hooks", "--batch", "1", "--slots", "2"]


def _images(count: int) -> list[tuple[str, bytes]]:
    return [(f"{n}.jpg", make_jpeg(n, (64, 64))) for n in range(count)]


def _state(http: httpx.Client, job: str) -> str:
    return str(http.get(f"/jobs/{job}").json()["state"])


def test_cancelled_and_overdue_jobs_are_not_executed(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=1, worker_args=SLOW_WORKER, env=SLOW)
    lookout.wait_ready()
    with lookout.client() as http:
        jobs = [job["id"] for job in upload(http, _images(12))["jobs"]]
        cancelled = jobs[6:]
        answer = http.post("/jobs/cancel", json={"jobs": cancelled})
        assert answer.json() == {"cancelled": len(cancelled)}
        overdue = http.post(
            "/jobs",
            params={"timeout": "0.3"},
            content=make_jpeg(99, (64, 64)),
            headers={"Content-Type": "image/jpeg"},
        ).json()["jobs"][0]["id"]
        wait_until(lambda: _state(http, overdue) == "failed", 10, "the deadline to pass")
        assert http.get(f"/jobs/{overdue}").json()["error"]["code"] == "deadline_exceeded"
        for job in jobs[:6]:
            assert http.get(f"/jobs/{job}", params={"wait": 30}).json()["state"] == "succeeded"
        assert {_state(http, job) for job in cancelled} == {"cancelled"}
    begun = {f"j{row['job']}" for row in attempts(lookout.data) if row["started_at"]}
    assert not begun & {*cancelled, overdue}, "abandoned work was executed"


def test_full_queue_says_come_back(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=0, master_args=["--queue-jobs", "20"])
    with lookout.client() as http:
        upload(http, _images(20))
        refused = http.post(
            "/jobs", content=make_jpeg(1, (64, 64)), headers={"Content-Type": "image/jpeg"}
        )
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        problem = refused.json()
        assert problem["code"] == "queue_full" and "20" in problem["detail"]
        assert http.delete("/jobs").status_code == 200
        upload(http, _images(20))


def test_terminated_core_loses_nothing(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=1, worker_args=SLOW_WORKER, env=SLOW)
    lookout.wait_ready()
    with lookout.client() as http:
        upload(http, _images(10))
        assert lookout.core is not None
        lookout.core.term()
        wait_until(lambda: lookout.core is not None and not lookout.core.alive, 20, "the end")
        assert lookout.core.returncode == 0
        assert not [row for row in attempts(lookout.data) if row["outcome"] == "lost"]
        left = query(lookout.data, "SELECT count(*) FROM jobs WHERE state IS NULL")[0][0]
        assert left > 0, "everything was done before the signal: the test proves nothing"
        lookout.restart_core()

        def ended() -> bool:
            try:
                return outcomes(all_jobs(http)) == {"succeeded": 10}
            except httpx.HTTPError:
                return False

        wait_until(ended, 40, "all jobs to end after the restart")


def test_images_that_are_none_fail_at_once_with_their_code(
    cluster: Callable[..., Cluster],
) -> None:
    lookout = cluster(workers=1)
    lookout.wait_ready()
    bad = {
        "text.jpg": (b"this is not an image at all", "not_an_image"),
        "half.jpg": (make_jpeg(3, (300, 300))[:2000], "truncated_image"),
        "empty.jpg": (b"", "empty_file"),
    }
    with lookout.client() as http:
        for name, (data, code) in bad.items():
            answer = upload(http, [(name, data), ("good.jpg", make_jpeg(1, (64, 64)))])
            ended = [
                http.get(f"/jobs/{job['id']}", params={"wait": 30}).json() for job in answer["jobs"]
            ]
            assert [job["state"] for job in ended] == ["failed", "succeeded"], name
            assert ended[0]["error"]["code"] == code, ended[0]["error"]
            assert ended[0]["attempts"] == 1


def test_garbage_at_the_workers_door_disturbs_nobody(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=1)
    lookout.wait_ready()
    host, port = lookout.core_address.rsplit(":", 1)
    strangers = [socket.create_connection((host, int(port))) for _ in range(60)]
    try:
        for number, stranger in enumerate(strangers):
            garbage = secrets.token_bytes(64) if number % 2 else b"\xff\xff\xff\xff" + bytes(60)
            stranger.sendall(garbage)
        with lookout.client() as http:
            answer = upload(http, _images(20))
            for job in answer["jobs"]:
                ended = http.get(f"/jobs/{job['id']}", params={"wait": 30}).json()
                assert ended["state"] == "succeeded"
    finally:
        for stranger in strangers:
            stranger.close()
    assert lookout.core is not None and lookout.core.alive
    log = lookout.core.log()
    assert "frame_too_large" in log and "127.0.0.1" in log


def test_a_decode_that_hangs_costs_its_own_job_only(cluster: Callable[..., Cluster]) -> None:
    marker = b"this-image-hangs"
    lookout = cluster(
        workers=2,
        worker_args=["--enable-fault-hooks"],
        env={"LOOKOUT_FAULTS": f"hang-on={marker.decode()}"},
    )
    lookout.wait_ready()
    images = _images(30)
    images[4] = ("hangs.jpg", images[4][1] + marker)
    with lookout.client() as http:
        jobs = [job["id"] for job in upload(http, images)["jobs"]]
        for number, job in enumerate(jobs):
            if number != 4:
                ended = http.get(f"/jobs/{job}", params={"wait": 90}).json()
                assert ended["state"] == "succeeded", ended
        stuck = http.get(f"/jobs/{jobs[4]}", params={"wait": 100}).json()
        assert stuck["state"] == "failed", stuck
        assert stuck["error"]["code"] == "decode_timeout"
    # The one with the thread that hangs would not end before the fixture's patience does.
    for worker in lookout.workers.values():
        worker.kill9()
