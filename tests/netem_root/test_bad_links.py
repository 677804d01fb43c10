"""Workers on links that lose 30 % and delay by 100 ms in each direction stay in the cluster."""

from __future__ import annotations

import json

import pytest

from tests.netem_root import uml

pytestmark = pytest.mark.integration


def test_heavy_loss_kills_no_worker_and_loses_no_job() -> None:
    uml.need_uml()
    arguments = ["--seconds", "12", "--workers", "2", "--loss", "30", "--delay", "100"]
    done = uml.run_python(["-m", "tests.netem_root.bad_links", *arguments], timeout_s=240.0)
    assert done.returncode == 0, done.output[-8000:]
    report = json.loads(done.output.partition("REPORT ")[2].splitlines()[0])
    assert report["died"] == report["lost"] == report["expired"] == 0, report
    assert report["joins"] == 2, "a worker had to join again"
    assert report["submitted"] == report["succeeded"] > 0, report
    assert min(report["streams"]) > 1, "the loss asked for more streams"
