"""`master up` as a user sees it: one command, one page, one line to join, a clean end."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.fakes.cluster import Cluster
from tests.integration.load import upload
from tests.shared import make_jpeg, wait_until

pytestmark = pytest.mark.integration


def test_up_serves_and_restarts_what_dies_and_ends_cleanly(
    cluster: Callable[..., Cluster],
) -> None:
    lookout = cluster(workers=1, whole=True)
    lookout.wait_ready(timeout_s=120)
    with lookout.client() as http:
        first = http.get("/workers").json()["workers"][0]
        answer = upload(http, [("a.jpg", make_jpeg(1, (64, 64)))])
        job = http.get(f"/jobs/{answer['jobs'][0]['id']}", params={"wait": 30}).json()
        assert job["state"] == "succeeded"
        status = lookout.run_master("status", "--json", "--data", str(lookout.data))
        assert status.returncode == 0, status.stderr
        shown = json.loads(status.stdout)
        assert shown["stats"]["counts"]["succeeded"] == 1
        assert [w["name"] for w in shown["workers"]["workers"]] == [first["name"]]
        table = lookout.run_master("status", "--data", str(lookout.data))
        assert first["name"] in table.stdout and "succeeded" in table.stdout
    up = lookout.core
    assert up is not None
    up.term()
    wait_until(lambda: not up.alive, 30, "master up to end")
    assert up.returncode == 0, up.log()


def test_wrong_flags_say_what_to_do(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=0, web=False)
    other = lookout.root / "other"
    cases = [
        (["core", "--data", str(other), "--listen", "127.0.0.1:high"], "high"),
        (
            ["core", "--data", str(other), "--listen", lookout.core_address, *lookout.model_args()],
            lookout.core_address,
        ),
        (["core", "--data", str(other), "--model", "googlenot", "--offline"], "googlenet"),
        (["core", "--data", str(other), "--weights", "/nowhere.pth"], "/nowhere.pth"),
        (["core", "--data", str(other), "--heartbeat", "9", "--lease-ttl", "10"], "lease_ttl_s"),
        (["core", "--data", "/proc/lookout"], "/proc/lookout"),
    ]
    for arguments, expected in cases:
        done = lookout.run_master(*arguments)
        assert done.returncode in (2, 3), (arguments, done.stderr)
        assert expected in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
