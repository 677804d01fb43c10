"""Workers that are killed, stopped or leave, under load: nothing is lost, nothing is doubled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.cluster import Cluster
from tests.integration.load import Load, all_jobs, attempts, outcomes
from tests.shared import make_jpeg, wait_until

pytestmark = pytest.mark.integration
REASSIGN_S_MAX = 0.2


def _images(count: int) -> list[bytes]:
    return [make_jpeg(seed, (224, 224)) for seed in range(count)]


def _counter(lookout: Cluster, name: str) -> int:
    with lookout.client() as http:
        return int(http.get("/stats").json()["counters"].get(name, 0))


def test_kill_nine_under_load(cluster: Callable[..., Cluster]) -> None:
    # Slowed down, so that each worker holds leases at any moment, however fast the machine.
    faults = {"LOOKOUT_FAULTS": "delay-ms=40"}
    lookout = cluster(workers=3, worker_args=["--enable-fault-hooks"], env=faults)
    lookout.wait_ready()
    load = Load(lookout.url, _images(400), concurrency=32)
    thread = load.start()
    load.wait_finished(100, timeout_s=60)
    lookout.workers["w2"].kill9()
    thread.join()
    assert not load.errors, load.errors[:3]
    assert len(load.finished) == 400
    assert {job["state"] for job in load.finished.values()} == {"succeeded"}
    rows = attempts(lookout.data)
    won = [row["job"] for row in rows if row["outcome"] == "succeeded"]
    assert len(won) == len(set(won)) == 400, "a finished job was computed again"
    lost = [row for row in rows if row["outcome"] == "lost"]
    assert lost, "the killed worker held nothing: the test proves nothing"
    for row in lost:
        # Another lease of the job: one given afterwards, or a hedge that was live already.
        others = [r for r in rows if r["job"] == row["job"] and r["ended_at"] > row["ended_at"]]
        later = min(other["granted_at"] for other in others)
        assert later - row["ended_at"] <= REASSIGN_S_MAX, (row, later)


def test_stopped_worker_is_fenced_and_works_again(cluster: Callable[..., Cluster]) -> None:
    faults = {"LOOKOUT_FAULTS": "delay-ms=40"}
    lookout = cluster(workers=2, worker_args=["--enable-fault-hooks"], env=faults)
    lookout.wait_ready()
    load = Load(lookout.url, _images(300), concurrency=24)
    thread = load.start()
    load.wait_finished(40, timeout_s=60)
    lookout.workers["w1"].sigstop()
    wait_until(lambda: len(lookout.ready_workers()) == 1, 15, "w1 to be suspected")
    thread.join()
    assert not load.errors, load.errors[:3]
    assert {job["state"] for job in load.finished.values()} == {"succeeded"}
    assert len(load.finished) == 300
    before = _counter(lookout, "stale")
    lookout.workers["w1"].sigcont()
    wait_until(lambda: _counter(lookout, "stale") > before, 20, "a late result to be fenced")
    wait_until(lambda: len(lookout.ready_workers()) == 2, 20, "w1 to be trusted again")
    second = Load(lookout.url, _images(60), concurrency=24)
    second.run()
    assert {job["worker"] for job in second.finished.values()} == {"w1", "w2"}
    with lookout.client() as http:
        assert outcomes(all_jobs(http)) == {"succeeded": 360}


def test_terminated_worker_drains(cluster: Callable[..., Cluster]) -> None:
    faults = {"LOOKOUT_FAULTS": "delay-ms=40"}
    lookout = cluster(workers=2, worker_args=["--enable-fault-hooks"], env=faults)
    lookout.wait_ready()
    load = Load(lookout.url, _images(150), concurrency=24)
    thread = load.start()
    load.wait_finished(20, timeout_s=60)
    worker = lookout.workers["w1"]
    worker.term()
    wait_until(lambda: not worker.alive, 20, "w1 to leave")
    assert worker.returncode == 0, worker.log()
    thread.join()
    assert not load.errors, load.errors[:3]
    assert {job["state"] for job in load.finished.values()} == {"succeeded"}
    rows = attempts(lookout.data)
    assert not [row for row in rows if row["outcome"] == "lost" or row["blamed"]]


def test_poison_is_named_and_everybody_else_is_unharmed(cluster: Callable[..., Cluster]) -> None:
    marker = b"this-image-kills"
    faults = {"LOOKOUT_FAULTS": f"crash-on={marker.decode()}"}
    lookout = cluster(
        workers=2, whole=True, master_args=["--worker-arg=--enable-fault-hooks"], env=faults
    )
    lookout.wait_ready(timeout_s=120)
    images = _images(60)
    images[20] += marker
    load = Load(lookout.url, images, concurrency=16)
    load.run(wait_s=110)
    assert not load.errors, load.errors[:3]
    poison = load.finished.pop(20)
    assert poison["state"] == "failed"
    assert poison["error"]["code"] == "poison"
    assert {job["state"] for job in load.finished.values()} == {"succeeded"}
    blamed = [row for row in attempts(lookout.data) if row["blamed"]]
    by_poison = [row for row in blamed if f"j{row['job']}" == poison["id"]]
    assert len(by_poison) == 3
    assert all(row["worker"] in poison["error"]["message"] for row in by_poison)
