"""A client's connections carry the options that keep them going on a bad link."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from client.config import Limits
from client.sockets import options
from client.transport import POOL_CONNECTIONS, Answer, Request, Transport
from tests.unit.client.server import Server


async def sockets_of(server: Server) -> list[Any]:
    """Those that one request has opened."""
    opened: list[Any] = []

    async def look(response: httpx.Response) -> None:
        opened.append(response.extensions["network_stream"].get_extra_info("socket"))

    async with Transport(server.url, Limits()) as transport:
        transport._pool().http.event_hooks["response"] = [look]
        await transport.send(Request("GET", "/jobs/j1"), {}, silent_s=5.0, total_s=5.0)
        return [[one.getsockopt(level, name) for level, name, _ in options()] for one in opened]


def test_what_the_kernel_takes_is_set_on_a_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    (found,) = asyncio.run(sockets_of(server))
    set_here = dict(zip([name for _, name, _ in options()], found, strict=True))
    assert set_here[socket.TCP_USER_TIMEOUT] == 30_000
    for _, name, value in options():
        if isinstance(value, int):
            assert set_here[name] == value


def test_proxies_of_the_environment_are_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)

    async def ask() -> Answer:
        async with Transport("http://lookout.invalid", Limits()) as transport:
            return await transport.send(Request("GET", "/jobs/j1"), {}, silent_s=5.0, total_s=5.0)

    answer = asyncio.run(ask())
    assert answer.status == 200 and len(server.seen) == 1


def test_many_requests_are_spread_over_small_pools(server: Server) -> None:
    async def go() -> tuple[int, int]:
        async with Transport(server.url, Limits()) as transport:

            async def ask() -> Answer:
                request = Request("GET", "/jobs/j1")
                return await transport.send(request, {}, silent_s=9.0, total_s=9.0)

            answers = await asyncio.gather(*[ask() for _ in range(2 * POOL_CONNECTIONS + 1)])
            assert {answer.status for answer in answers} == {200}
            many = len(transport._pools)
            assert sum(pool.under_way for pool in transport._pools) == 0
            await ask()
            return many, len(transport._pools)

    assert asyncio.run(go()) == (3, 3)


def test_what_is_above_all_connections_waits_for_one(server: Server) -> None:
    async def go() -> tuple[int, int]:
        async with Transport(server.url, Limits(), connections=2) as transport:
            request = Request("GET", "/jobs/j1")
            sends = [transport.send(request, {}, silent_s=9.0, total_s=9.0) for _ in range(40)]
            answers = await asyncio.gather(*sends)
            return len(answers), len(transport._pools)

    assert asyncio.run(go()) == (40, 1)
