"""A thousand who only listen and slow senders, in front of a real cluster: uploads go on."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable

import httpx
import pytest

from tests.fakes.cluster import Cluster
from tests.shared import make_jpeg

pytestmark = pytest.mark.integration
LISTENERS = 1000
AT_ONCE = 50
SLOW_HEADERS = 100
SLOW_BODIES = 100
UPLOADS = 40
# Sooner than the slow ones are cut off (a header after 10 s, a body after 20): nobody must leave.
UPLOADS_S = 9.0
REQUEST_S = 60.0
DRIP_S = 0.5
HEAD = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture
def many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < LISTENERS + 500:
        pytest.skip(f"this machine allows {hard} open files, {LISTENERS + 500} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Crowd:
    """Everybody who is in the way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._dripping: list[asyncio.Task[None]] = []
        self.listeners: list[asyncio.StreamReader] = []

    async def come(self) -> None:
        """Open every connection; a listener is there when it is greeted."""
        for _ in range(0, LISTENERS, AT_ONCE):
            self.listeners += await asyncio.gather(*(self._listen() for _ in range(AT_ONCE)))
        for number in range(SLOW_HEADERS + SLOW_BODIES):
            _, writer = await self._open()
            slow_body = number >= SLOW_HEADERS
            writer.write(HEAD + (b"Content-Length: 100000\r\n\r\n" if slow_body else b""))
            piece = b"x" if slow_body else b"X-A: b\r\n"
            self._dripping.append(asyncio.create_task(self._drip(writer, piece)))

    async def _listen(self) -> asyncio.StreamReader:
        reader, writer = await self._open()
        writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b'data: {"up": true}')
        return reader

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        self._writers.append(writer)
        return reader, writer

    async def _drip(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        """One piece now and then, as slowloris does, until the server has had enough."""
        while not writer.is_closing():
            writer.write(piece)
            await asyncio.sleep(DRIP_S)

    def leave(self) -> None:
        """Close everything."""
        for task in self._dripping:
            task.cancel()
        for writer in self._writers:
            writer.close()


async def upload_beside(port: int, url: str) -> tuple[list[int], float]:
    """Uploads that wait for their results, while everybody is there."""
    crowd = Crowd(port)
    await crowd.come()
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_S, trust_env=False) as client:
        posts = [
            client.post(
                "/api/v1/jobs?wait=60",
                content=make_jpeg(number, (224, 224)),
                headers={"Content-Type": "image/jpeg"},
            )
            for number in range(UPLOADS)
        ]
        statuses = [answer.status_code for answer in await asyncio.gather(*posts)]
    took_s = time.monotonic() - began
    async with asyncio.timeout(30):
        for reader in crowd.listeners:
            await reader.readuntil(b"event: job")
    crowd.leave()
    return statuses, took_s


def test_slow_and_idle_connections_do_not_stop_uploads(
    many_files: None, cluster: Callable[..., Cluster]
) -> None:
    lookout = cluster(workers=2)
    lookout.wait_ready()
    port = int(lookout.url.rsplit(":", 1)[1])
    statuses, took_s = asyncio.run(upload_beside(port, lookout.url))
    assert statuses == [200] * UPLOADS
    print(f"{UPLOADS} uploads in {took_s:.2f} s beside {LISTENERS} listeners")
    assert took_s < UPLOADS_S
    assert len(lookout.ready_workers()) == 2
