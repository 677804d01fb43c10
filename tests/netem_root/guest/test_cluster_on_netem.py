"""A small real cluster whose worker is behind a lossy `sch_netem` link."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from netem.grammar import parse
from netem.spec import Duplex
from netem.tc.backend import TcBackend
from tests.fakes.cluster import Cluster
from tests.integration.load import upload
from tests.netem_root.guest.net import NEAR_IP, Pair
from tests.shared import REPOSITORY, make_jpeg, wait_until

JOBS = 16
LOSSY = Duplex.both(parse("loss=10% delay=10ms rate=20mbit"))
READY_TIMEOUT_S = 60.0


def test_every_image_is_classified_over_a_link_that_loses_a_tenth(
    pair: Pair, cluster: Callable[..., Cluster]
) -> None:
    backend = TcBackend()
    backend.apply(pair.link, LOSSY)
    lookout = cluster(workers=0, bundled=True, master_args=["--listen", f"{NEAR_IP}:0"])
    _, _, port = lookout.core_address.rpartition(":")
    # A worker in the other namespace: it reaches the core over the link or not at all.
    stranger = subprocess.Popen(
        [
            *("ip", "netns", "exec", pair.far, sys.executable),
            str(REPOSITORY / "tests/fakes/stranger_worker.py"),
            *(NEAR_IP, port, lookout.token),
        ],
        start_new_session=True,
        env=dict(os.environ),
    )
    try:
        wait_until(lambda: len(lookout.ready_workers()) == 1, READY_TIMEOUT_S, "the worker")
        images = [(f"{n}.jpg", make_jpeg(n, (320, 320))) for n in range(JOBS)]
        with lookout.client() as http:
            for job in upload(http, images)["jobs"]:
                ended = http.get(f"/jobs/{job['id']}", params={"wait": 60}).json()
                assert ended["state"] == "succeeded"
                assert ended["worker"].startswith("stranger-")
                assert ended["attempts"] == 1, "a lossy link is no dead worker"
    finally:
        stranger.kill()
        stranger.wait()
    seen = backend.observe(pair.link)
    backend.clear(pair.link)
    assert seen is not None
    for name, direction in (("egress", seen.egress), ("ingress", seen.ingress)):
        print(f"{name}: {direction.spec}: {direction.counters}")
        assert direction.counters.dropped_packets > 0, "nothing was lost: no test"
    sent_bytes = sum(len(data) for _, data in images)
    assert seen.egress.counters.delivered_bytes > sent_bytes, "the images went over the link"
