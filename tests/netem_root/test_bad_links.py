"""Workers on links that lose 30 % and delay by 100 ms in each direction stay in the cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.netem_root import uml

pytestmark = pytest.mark.integration

TRIES = 2


def report() -> dict[str, Any]:
    """A run of 12 s with two workers; no job may get lost, whatever else happens."""
    arguments = ["--seconds", "12", "--workers", "2", "--loss", "30", "--delay", "100"]
    done = uml.run_python(["-m", "tests.netem_root.bad_links", *arguments], timeout_s=240.0)
    assert done.returncode == 0, done.output[-8000:]
    found: dict[str, Any] = json.loads(done.output.partition("REPORT ")[2].splitlines()[0])
    assert found["submitted"] == found["succeeded"] > 0, found
    assert min(found["streams"]) > 1, "the loss asked for more streams"
    return found


def test_heavy_loss_kills_no_worker_and_loses_no_job() -> None:
    """Until its streams stand a worker has one connection, where five losses in a row mean more
    than 10 s of silence, the hard timeout: TCP's own, and rare. Twice in a row is ours.
    """
    uml.need_uml()
    reports: list[dict[str, Any]] = []
    while len(reports) < TRIES:
        reports.append(report())
        last = reports[-1]
        if last["died"] == last["lost"] == last["expired"] == 0 and last["joins"] == 2:
            return
    pytest.fail(f"workers died or had to join again in each of {TRIES} runs: {reports}")
