"""Fixtures for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import pytest

from tests import shared
from tests.fakes.cluster import Cluster

# No deadline per example: on a shared machine any example may wait for a processor. A failure
# prints what reproduces it elsewhere.
hypothesis.settings.register_profile("lookout", deadline=None, print_blob=True)
hypothesis.settings.load_profile("lookout")

# Users don't set it, and output that is never flushed looks fine with it.
os.environ.pop("PYTHONUNBUFFERED", None)

_FAILED = pytest.StashKey[bool]()
_TERMINATED = pytest.StashKey[bool]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """SIGTERM ends the tests as Ctrl-C does, fixtures and all; exit status 143."""

    def end(number: int, frame: FrameType | None) -> None:
        # The fixtures' own ends take a while: a second signal must not break them off.
        if not session.stash.get(_TERMINATED, False):
            session.stash[_TERMINATED] = True
            raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, end)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The status tells a caller which signal it was."""
    if session.stash.get(_TERMINATED, False):
        session.exitstatus = 128 + signal.SIGTERM


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Remember a failure, so that fixtures know at their end whether to print logs."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture
def shared_data() -> Path:
    """The shared folder; skips without it, fails where it is required."""
    return shared.need_shared("data").parent


@pytest.fixture
def imagenet100() -> Path:
    """100 real photographs and `labels.csv`; skips without them, fails where required."""
    return shared.need_shared(shared.IMAGENET100)


@pytest.fixture
def squeezenet_weights() -> Path:
    """ImageNet weights of SqueezeNet 1.1; skips without them, fails where required."""
    return shared.need_shared(shared.SQUEEZENET)


@pytest.fixture
def make_jpeg() -> Callable[..., bytes]:
    """Factory of small real JPEG files: `make_jpeg(seed, (width, height))`."""
    return shared.make_jpeg


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Factory of started clusters: `cluster(workers=3)`; all are stopped, logs shown on failure."""
    made: list[Cluster] = []

    def start(**options: Any) -> Cluster:
        root = tmp_path / f"cluster{len(made)}"
        root.mkdir()
        made.append(Cluster(root, **options))
        return made[-1].start()

    yield start
    problems = [problem for c in made if (problem := _stop(c)) is not None]
    if problems or request.node.stash.get(_FAILED, False):
        for one in made:
            print(one.logs())
    if problems:
        raise problems[0]


def _stop(cluster: Cluster) -> AssertionError | None:
    try:
        cluster.stop()
    except AssertionError as problem:
        return problem
    return None
