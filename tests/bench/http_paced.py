"""Load for a time, or at a rate, on servers of any kind.

`tests.bench.http_load` counts on answers as Lookout gives them; peers also answer in
chunks, or close the connection after each answer, so streams read them here.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import uvloop

from tests.bench.http_load import LoadResult

READ_BYTES = 2**16


@dataclass(frozen=True)
class Window:
    """Only answers that come between these two moments count; requests begin until the end."""

    begin_s: float
    end_s: float

    def holds(self, moment_s: float) -> bool:
        return self.begin_s <= moment_s < self.end_s


async def _run_for(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, window: Window
) -> LoadResult:
    result = LoadResult(elapsed_s=window.end_s - window.begin_s)
    numbers = itertools.count()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_loop(host, port, requests, numbers, window, result))
    return result


async def _loop(
    host: str,
    port: int,
    requests: Sequence[bytes],
    numbers: Iterator[int],
    window: Window,
    result: LoadResult,
) -> None:
    writer = None
    try:
        while (began := time.perf_counter()) < window.end_s:
            if writer is None:
                reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
            writer.write(requests[next(numbers) % len(requests)])
            status, stays = await _answer(reader)
            answered = time.perf_counter()
            if window.holds(answered):
                result.latencies_s.append(answered - began)
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
    host: str,
    port: int,
    requests: Sequence[bytes],
    concurrency: int,
    seconds: float,
    warm_s: float = 0.0,
) -> LoadResult:
    """A closed loop; raises on anything but an answer.

    Counted are the answers of so many seconds after `warm_s`: neither the start, when
    nothing has come back yet, nor the end, when fewer and fewer requests are left.
    """
    begin_s = time.perf_counter() + warm_s
    window = Window(begin_s, begin_s + seconds)
    return uvloop.run(_run_for(host, port, requests, concurrency, window))


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
