"""Load for a time, or at a rate, on servers of any kind.

`tests.bench.http_load` counts on answers as Lookout gives them; peers also answer in
chunks, or close the connection after each answer, so streams read them here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import uvloop

from tests.bench.http_load import LoadResult

READ_BYTES = 2**16


async def _run_numbers(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, numbers: Iterator[int]
) -> LoadResult:
    result = LoadResult()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_loop(host, port, requests, numbers, result))
    result.elapsed_s = time.perf_counter() - began
    return result


async def _loop(
    host: str, port: int, requests: Sequence[bytes], numbers: Iterator[int], result: LoadResult
) -> None:
    writer = None
    try:
        for number in numbers:
            began = time.perf_counter()
            if writer is None:
                reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
            writer.write(requests[number % len(requests)])
            status, stays = await _answer(reader)
            result.latencies_s.append(time.perf_counter() - began)
            result.statuses[status] = result.statuses.get(status, 0) + 1
            if not stays:
                writer.close()
                writer = None
    finally:
        if writer is not None:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status of one answer, and whether the connection stays for another request."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readline()).strip() or b"0", 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(headers["content-length"]))
    version, status = lines[0].split(" ")[:2]
    unsaid = "close" if version == "HTTP/1.0" else "keep-alive"
    return int(status), headers.get("connection", unsaid).lower() != "close"


def run_load_for(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, seconds: float
) -> LoadResult:
    """A closed loop for so many seconds; raises on anything but an answer."""

    def numbers() -> Iterator[int]:
        end = time.perf_counter() + seconds
        number = 0
        while time.perf_counter() < end:
            yield number
            number += 1

    return uvloop.run(_run_numbers(host, port, requests, concurrency, numbers()))


def run_paced(
    host: str, port: int, requests: Sequence[bytes], rate_per_s: float, seconds: float
) -> LoadResult:
    """An open loop: a request every `1 / rate_per_s`, whether or not others were answered.

    A latency counts from the moment that the request was due, so that a server
    that stalls doesn't hide what it kept waiting.
    """
    return uvloop.run(_paced(host, port, requests, rate_per_s, seconds))


async def _paced(
    host: str, port: int, requests: Sequence[bytes], rate_per_s: float, seconds: float
) -> LoadResult:
    result = LoadResult()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    began = time.perf_counter()

    async def one(number: int) -> None:
        due = began + number / rate_per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        stream = idle.pop() if idle else await asyncio.open_connection(host, port, limit=READ_BYTES)
        stream[1].write(requests[number % len(requests)])
        status, stays = await _answer(stream[0])
        result.latencies_s.append(time.perf_counter() - due)
        result.statuses[status] = result.statuses.get(status, 0) + 1
        if stays:
            idle.append(stream)
        else:
            stream[1].close()

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate_per_s * seconds)):
            group.create_task(one(number))
    for _, writer in idle:
        writer.close()
    result.elapsed_s = time.perf_counter() - began
    return result
