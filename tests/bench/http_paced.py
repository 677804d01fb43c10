"""A closed-loop load generator for POST requests over keep-alive connections.

A general HTTP client costs more CPU per request than the service that is
measured here (httpx: about 1 ms), and both share the cores of one machine. So
requests are ready-made bytes and answers are only cut at their length.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop

READ_BYTES = 2**16


@dataclass
class LoadResult:
    """What a closed loop saw: seconds per request, statuses, the time of the whole run."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def per_second(self) -> float:
        """Requests answered per second."""
        return len(self.latencies_s) / self.elapsed_s

    def percentile_ms(self, quantile: int) -> float:
        """Nearest rank."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, len(ordered) * quantile // 100)]


def post_request(path: str, host: str, body: bytes, headers: Sequence[str] = ()) -> bytes:
    """One HTTP/1.1 request as bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {len(body)}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def run_load(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, count: int
) -> LoadResult:
    """Send `count` requests, `concurrency` at a time; raises on anything but an answer."""
    return uvloop.run(_run(host, port, requests, concurrency, count))


async def _run(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, count: int
) -> LoadResult:
    return await _run_numbers(host, port, requests, concurrency, iter(range(count)))


async def _run_numbers(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, numbers
) -> LoadResult:
    result = LoadResult()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_loop(host, port, requests, numbers, result))
    result.elapsed_s = time.perf_counter() - began
    return result


async def _loop(
    host: str, port: int, requests: Sequence[bytes], numbers, result: LoadResult
) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
    try:
        for number in numbers:
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            status = await _answer(reader)
            result.latencies_s.append(time.perf_counter() - began)
            result.statuses[status] = result.statuses.get(status, 0) + 1
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readline()).strip() or b"0", 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split(" ")[1])


def run_load_for(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, seconds: float
) -> LoadResult:
    """As `run_load`, for so many seconds."""

    def numbers():
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
    result, idle = LoadResult(), []
    began = time.perf_counter()

    async def one(number: int) -> None:
        due = began + number / rate_per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        stream = idle.pop() if idle else await asyncio.open_connection(host, port, limit=READ_BYTES)
        stream[1].write(requests[number % len(requests)])
        status = await _answer(stream[0])
        result.latencies_s.append(time.perf_counter() - due)
        result.statuses[status] = result.statuses.get(status, 0) + 1
        idle.append(stream)

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate_per_s * seconds)):
            group.create_task(one(number))
    for _, writer in idle:
        writer.close()
    result.elapsed_s = time.perf_counter() - began
    return result
