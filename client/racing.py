"""Connections that don't wait for one lost segment: several are tried, the first one stays.

A lost SYN is repeated after a second; where many are lost, that and the next ones decide how
long an image takes. So another connection is tried beside the first as soon as that one is
late. On a link that is well no second one is begun. After "Happy Eyeballs" (RFC 8305),
which does so over several addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import httpcore
from httpcore import SOCKET_OPTION, AsyncNetworkStream

LATE_S = 0.3
"""The first wait before another try; each next one is twice as long, so that a busy machine,
where everything is late, is not made busier."""
TRIES_MAX = 4


class RacingBackend(httpcore.AsyncNetworkBackend):
    """A network backend of httpcore; `inner` makes each connection."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """The first connection that stands; raises what httpcore raises, of the first that fails.

        A refusal is an answer: nothing is tried beside it.
        """
        tries: list[asyncio.Task[AsyncNetworkStream]] = []
        try:
            while True:
                if len(tries) < TRIES_MAX:
                    one = self._inner.connect_tcp(
                        host, port, timeout, local_address, socket_options
                    )
                    tries.append(asyncio.ensure_future(one))
                late_s = LATE_S * 2 ** (len(tries) - 1) if len(tries) < TRIES_MAX else None
                done, _ = await asyncio.wait(
                    tries, timeout=late_s, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    first = min(done, key=tries.index)
                    stream = first.result()
                    tries.remove(first)
                    return stream
        finally:
            await _end(tries)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """As it is."""
        return await self._inner.connect_unix_socket(path, timeout, socket_options)

    async def sleep(self, seconds: float) -> None:
        """As it is."""
        await self._inner.sleep(seconds)


async def _end(tries: Iterable[asyncio.Task[AsyncNetworkStream]]) -> None:
    """Leave no connection behind that came too late."""
    for one in tries:
        one.cancel()
    for late in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(late, AsyncNetworkStream):
            await late.aclose()
