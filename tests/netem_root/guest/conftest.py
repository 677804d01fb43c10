"""What tests inside the kernel of `uml.py` share; on the host none of them is collected.

`tests/netem_root/test_in_kernel.py` boots the kernel and runs them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from netem.tc.backend import TcBackend
from tests.netem_root.guest.net import Pair

IN_GUEST = "LOOKOUT_UML" in os.environ
collect_ignore_glob = [] if IN_GUEST else ["test_*.py"]


@pytest.fixture(scope="module")
def wire() -> Iterator[Pair]:
    """Two namespaces joined by a veth pair."""
    with Pair() as made:
        yield made


@pytest.fixture
def pair(wire: Pair) -> Iterator[Pair]:
    """The wire, which the test leaves as it was."""
    before = wire.snapshot()
    yield wire
    left = wire.snapshot()
    if left != before:
        # For the tests after this one.
        TcBackend().clear(wire.link)
    assert left == before
