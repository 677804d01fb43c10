"""Workers on links that lose 30 % and delay by 100 ms in each direction stay in the cluster."""

from __future__ import annotations

import json
import re

import pytest

from tests.netem_root import uml

pytestmark = pytest.mark.integration
# What became of workers and their streams, and when: nobody sees such a run a second time.
TELLING = re.compile(r" (worker|stream)_\w+ | joined | connection_lost | phase | stood_still ")


def test_heavy_loss_kills_no_worker_and_loses_no_job() -> None:
    uml.need_uml()
    arguments = ["--seconds", "12", "--workers", "2", "--loss", "30", "--delay", "100", "--logs"]
    done = uml.run_python(["-m", "tests.netem_root.bad_links", *arguments], timeout_s=240.0)
    assert done.returncode == 0, done.output[-8000:]
    report = json.loads(done.output.partition("REPORT ")[2].splitlines()[0])
    told = "\n".join(line for line in done.output.splitlines() if TELLING.search(line))
    assert report["died"] == report["lost"] == report["expired"] == 0, f"{report}\n{told}"
    assert report["joins"] == 2, "a worker had to join again"
    assert report["submitted"] == report["succeeded"] > 0, report
    assert min(report["streams"]) > 1, "the loss asked for more streams"
