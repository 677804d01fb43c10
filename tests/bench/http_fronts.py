"""Which HTTP front for Flask: uploads while others only listen or drip.

Starts the same trivial application (`POST /upload` reads the body, `GET /events`
streams) behind each candidate in a process of its own, hangs `--listeners` idle
event streams and `--drippers` uploads of one byte a second on it, and then
posts bodies of 100 kB at `--concurrency` for `--seconds`. Prints a table; judge
by several runs. Candidates that aren't installed are left out.

Run: python -m tests.bench.http_fronts
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

BODY = os.urandom(100_000)
# What the threaded ones get; one has many more, to see what elastic threads would give.
THREADS = 64
START_S = 20.0


# --- the application, as WSGI and behind the gateway's way --------------------------------------


def wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    """POST /upload counts the body; GET /events never ends."""
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return endless()
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (piece := environ["wsgi.input"].read(min(left, 65536))):
        left -= len(piece)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def endless() -> Any:
    """An event stream with nothing to say."""
    while True:
        yield b": alive\n\n"
        time.sleep(15)


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The same, natively."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/events":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await send({"type": "http.response.body", "body": b": alive\n\n", "more_body": True})
            await asyncio.sleep(15)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok", "more_body": False})


# --- the candidates ---------------------------------------------------------------------------


def serve_granian(port: int, interface: str, wsgi_threads: int = THREADS) -> None:
    """Granian, one process."""
    from granian import Granian
    from granian.constants import Interfaces

    threads = {"blocking_threads": wsgi_threads} if interface == "wsgi" else {}
    Granian(
        f"tests.bench.http_fronts:{interface}",
        address="127.0.0.1",
        port=port,
        interface=Interfaces(interface if interface == "wsgi" else "asginl"),
        log_enabled=False,
        **threads,
    ).serve()


def serve_waitress(port: int) -> None:
    """Waitress, one process."""
    import waitress

    waitress.serve(
        wsgi, host="127.0.0.1", port=port, threads=THREADS, connection_limit=2000, _quiet=True
    )


def serve_gunicorn(port: int) -> None:
    """Gunicorn with threads, one process."""
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", str(THREADS)]
    command += ["-b", f"127.0.0.1:{port}", "--log-level", "critical", "--timeout", "600"]
    os.execv(sys.executable, [*command, "tests.bench.http_fronts:wsgi"])


CANDIDATES: dict[str, tuple[str, Callable[[int], None]]] = {
    "granian asgi": ("granian", lambda port: serve_granian(port, "asgi")),
    "granian wsgi": ("granian", lambda port: serve_granian(port, "wsgi")),
    "granian wsgi, 1024 threads": ("granian", lambda port: serve_granian(port, "wsgi", 1024)),
    "gunicorn gthread": ("gunicorn", serve_gunicorn),
    "waitress": ("waitress", serve_waitress),
}


# --- the load ---------------------------------------------------------------------------------


@dataclass
class Figures:
    """What one candidate did."""

    posts_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    resident_mib: float


async def load(port: int, options: argparse.Namespace, loaded: bool) -> Figures:
    """Hang the idle ones on, then post."""
    hanging = []
    if loaded:
        hanging += [asyncio.create_task(listen(port)) for _ in range(options.listeners)]
        hanging += [asyncio.create_task(drip(port)) for _ in range(options.drippers)]
        await asyncio.sleep(1.5)  # let them be accepted; nothing else says so
    times: list[float] = []
    failed = [0]
    deadline = time.monotonic() + options.seconds
    posting = [post(port, deadline, times, failed) for _ in range(options.concurrency)]
    await asyncio.gather(*posting)
    for task in hanging:
        task.cancel()
    times.sort()
    return Figures(
        posts_per_s=len(times) / options.seconds,
        p50_ms=1000 * times[len(times) // 2] if times else float("nan"),
        p99_ms=1000 * times[int(len(times) * 0.99)] if times else float("nan"),
        failed=failed[0],
        resident_mib=0.0,
    )


async def post(port: int, deadline: float, times: list[float], failed: list[int]) -> None:
    """Post on one connection after the other's answer; a stuck one counts as failed."""
    head = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    while time.monotonic() < deadline:
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic() + 1)):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                while time.monotonic() < deadline:
                    began = time.monotonic()
                    writer.write(head + BODY)
                    await read_answer(reader)
                    times.append(time.monotonic() - began)
                writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            failed[0] += 1


async def read_answer(reader: asyncio.StreamReader) -> None:
    """Read one answer of two bytes, with a length or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"0\r\n\r\n") if b"chunked" in head else await reader.readexactly(2)


async def listen(port: int) -> None:
    """Open an event stream and read what comes."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while await reader.read(4096):
            pass


async def drip(port: int) -> None:
    """Upload a byte a second."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(1)


def measure(name: str, options: argparse.Namespace, loaded: bool) -> Figures:
    """Start a candidate, load it, end it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tests.bench.http_fronts",
        "--serve",
        name,
        "--port",
        str(port),
    ]
    server = subprocess.Popen(command)
    try:
        wait_for(port)
        figures = asyncio.run(load(port, options, loaded))
        tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        figures.resident_mib = sum(one.memory_info().rss for one in tree) / 2**20
        return figures
    finally:
        for one in [*psutil.Process(server.pid).children(recursive=True), server]:
            with suppress(psutil.Error):
                one.kill()
        server.wait()


def wait_for(port: int) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=CANDIDATES)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--drippers", type=int, default=20)
    options = parser.parse_args()
    if options.serve:
        CANDIDATES[options.serve][1](options.port)
        return
    print("| front | others | posts/s | p50 ms | p99 ms | failed | MiB |")
    print("|---|---|---|---|---|---|---|")
    for name, (module, _) in CANDIDATES.items():
        if importlib.util.find_spec(module) is None:
            continue
        for loaded in (False, True):
            figures = measure(name, options, loaded)
            others = f"{options.listeners} listen, {options.drippers} drip" if loaded else "none"
            print(
                f"| {name} | {others} | {figures.posts_per_s:.0f} | {figures.p50_ms:.1f} "
                f"| {figures.p99_ms:.1f} | {figures.failed} | {figures.resident_mib:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
