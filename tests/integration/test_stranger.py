"""A worker that knows only the protocol's page joins a real master and classifies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.fakes.cluster import Cluster
from tests.integration.load import upload
from tests.shared import REPOSITORY, make_jpeg, wait_until
from wire.blocking import connect
from wire.errors import Rejected
from wire.messages import VERSION, Hello

pytestmark = pytest.mark.integration


def test_stranger_classifies(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=0)
    host, port = lookout.core_address.rsplit(":", 1)
    stranger = subprocess.Popen(
        [sys.executable, REPOSITORY / "tests/fakes/stranger_worker.py", host, port, lookout.token],
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(lookout.ready_workers()) == 1, 30, "the stranger to be ready")
        with lookout.client() as http:
            answer = upload(http, [(f"{n}.jpg", make_jpeg(n, (64, 64))) for n in range(20)])
            for job in answer["jobs"]:
                ended = http.get(f"/jobs/{job['id']}", params={"wait": 20}).json()
                assert ended["state"] == "succeeded"
                assert ended["result"]["label"]
    finally:
        stranger.kill()
        stranger.wait()


def test_stranger_with_the_wrong_token_is_refused(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=0, web=False)
    host, port = lookout.core_address.rsplit(":", 1)
    script = REPOSITORY / "tests/fakes/stranger_worker.py"
    done = subprocess.run(
        [sys.executable, script, host, port, "not-the-token"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode != 0
    assert lookout.core is not None
    wait_until(lambda: "bad_token" in lookout.core.log(), 5, "the refusal to be logged")
    assert lookout.core.alive


def test_the_workers_door_takes_workers_only(cluster: Callable[..., Cluster]) -> None:
    """A machine with the join token may bring work to an end, not command the master."""
    lookout = cluster(workers=0, web=False)
    for role in ("admin", "web"):
        hello = Hello(versions=[VERSION], role=role, name="visitor", incarnation="1")
        with pytest.raises(Rejected) as refusal:
            connect(lookout.core_address, lookout.token, hello, connect_timeout_s=5)
        assert refusal.value.code == "wrong_door"
    assert lookout.core is not None and lookout.core.alive
