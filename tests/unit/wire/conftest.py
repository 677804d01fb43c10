"""Loops and addresses that the shells are tested on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.unit.wire.shell import DEADLINE_S, Run


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test on one of the two loops, with a deadline over all of it."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def runner(main: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await main

        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(bounded())

    return runner


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to listen, of both kinds."""
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s"
