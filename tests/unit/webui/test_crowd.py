"""Many who only listen, some who drip, and the uploads that must go on beside them."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from tests.fakes.core import FakeCore
from tests.unit.webui.conftest import Web, picture

LISTENERS = 1000
DRIPPERS = 20
UPLOADS = 200
MIB = 2**20
WEB_MIB_MAX = 300


@pytest.fixture
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < LISTENERS + 500:
        pytest.skip(f"this machine allows {hard} open files, {LISTENERS + 500} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, LISTENERS + 500), hard))


def resident_mib(web: Web) -> float:
    tree = psutil.Process(web.process.pid).children(recursive=True)
    return sum(float(one.memory_info().rss) for one in tree) / MIB


async def listen(web: Web) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b'data: {"up": true}')
    return reader, writer


async def drip(web: Web) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.write(
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: 1000000\r\n\r\nabc"
    )
    await writer.drain()
    return writer


async def crowd(web: Web) -> list[int]:
    """Hang everyone on, upload beside them, and see that all listeners hear of it."""
    listeners = [await listen(web) for _ in range(LISTENERS)]
    drippers = [await drip(web) for _ in range(DRIPPERS)]
    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(base_url=web.url, timeout=60, limits=limits) as client:
        posts = [
            client.post(
                "/api/v1/jobs?wait=60",
                content=picture(number),
                headers={"Content-Type": "image/jpeg"},
            )
            for number in range(UPLOADS)
        ]
        statuses = [answer.status_code for answer in await asyncio.gather(*posts)]
    async with asyncio.timeout(30):
        for reader, _ in listeners:
            await reader.readuntil(b"event: job")
    for writer in [*drippers, *(writer for _, writer in listeners)]:
        writer.close()
    return statuses


def test_uploads_go_on_beside_listeners_and_drippers(
    many_files: None, own_core: FakeCore, start_web: Callable[..., Web]
) -> None:
    web = start_web(own_core)
    assert asyncio.run(crowd(web)) == [200] * UPLOADS
    assert resident_mib(web) < WEB_MIB_MAX


def test_a_form_of_1000_photographs_is_never_held_whole(
    own_core: FakeCore, start_web: Callable[..., Web]
) -> None:
    """400 MB go through; the web may grow by a few parts of 4 MB, not by the form."""
    web = start_web(own_core)
    with web.client() as client:
        client.get("/readyz")
        before = resident_mib(web)
        photo = picture() + bytes(400_000)
        head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n\r\n'

        def body() -> Iterator[bytes]:
            for number in range(1000):
                yield head % number + photo + b"\r\n"
            yield b"--b--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = client.post("/api/v1/jobs", content=body(), headers=headers, timeout=120)
    assert answer.status_code == 202
    assert len(answer.json()["jobs"]) == 1000
    assert resident_mib(web) - before < 100
