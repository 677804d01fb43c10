"""A closed-loop load generator for POST requests over keep-alive connections.

A general HTTP client costs more CPU per request than the service that is
measured here (httpx: about 1 ms), and both share the cores of one machine. So
requests are ready-made bytes, answers are only cut at their length, and every
connection is a bare protocol on one uvloop: no stream, no task, no future per
request. It says what CPU it took itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop


@dataclass
class LoadResult:
    """What a closed loop saw: seconds per request, statuses, time and CPU of the whole run."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    elapsed_s: float = 0.0
    cpu_s: float = 0.0

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


def form_body(images: Sequence[bytes], boundary: str = "b0undary") -> tuple[str, bytes]:
    """Content type and body of a form with these images in the field `image`."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%s\r\n" % (boundary.encode(), number, image)
        for number, image in enumerate(images)
    ]
    body = b"".join(parts) + b"--%s--\r\n" % boundary.encode()
    return f"multipart/form-data; boundary={boundary}", body


def run_load(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, count: int
) -> LoadResult:
    """Send `count` requests, `concurrency` at a time; raises on anything but an answer."""
    return uvloop.run(_run(host, port, requests, concurrency, count))


async def _run(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, count: int
) -> LoadResult:
    loop = asyncio.get_running_loop()
    result = LoadResult()
    numbers = iter(range(count))
    callers = [
        (await loop.create_connection(lambda: _Caller(requests, numbers, result), host, port))[1]
        for _ in range(concurrency)
    ]
    cpu, began = time.process_time(), time.perf_counter()
    for caller in callers:
        caller.next()
    await asyncio.gather(*(caller.done for caller in callers))
    result.elapsed_s = time.perf_counter() - began
    result.cpu_s = time.process_time() - cpu
    return result


class _Caller(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last is whole."""

    def __init__(
        self, requests: Sequence[bytes], numbers: Iterator[int], result: LoadResult
    ) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._numbers = numbers
        self._result = result
        self._began = 0.0
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def next(self) -> None:
        """Send one more, or end."""
        number = next(self._numbers, None)
        if number is None:
            self._transport.close()
            self.done.set_result(None)
            return
        self._began = time.perf_counter()
        self._transport.write(self._requests[number % len(self._requests)])

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or not _whole(head, body):
            return
        self._buffer = b""
        self._result.latencies_s.append(time.perf_counter() - self._began)
        status = int(head[9:12])
        self._result.statuses[status] = self._result.statuses.get(status, 0) + 1
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


def _whole(head: bytes, body: bytes) -> bool:
    """Whether an answer is complete; granian sends a length with every one of ours."""
    at = head.lower().find(b"content-length:")
    if at < 0:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head[at + 15 :].split(b"\r\n", 1)[0])
