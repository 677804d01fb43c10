"""A server of the test's own, and a clock that sleeps by moving on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from client import Clock
from tests.unit.client.server import Server


class Watch:
    """A clock that stands still but for sleeps, which it remembers."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        """Move on; let others run."""
        self.slept.append(delay_s)
        self.now_s += delay_s
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        """It, with chance that is the same at every run."""
        return Clock(now=lambda: self.now_s, sleep=self.sleep, rng=random.Random(7))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def watch() -> Watch:
    return Watch()
