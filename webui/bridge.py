"""Run the Flask application for one request, in a thread of a bounded pool.

A thread is held only while Flask works: the body (small, bounded) is read
before, the answer is written after, both by the event loop. So a slow client
costs memory that is counted, and never a thread.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.types import WSGIApplication

from webui.config import Limits
from webui.exchange import Exchange
from webui.problems import Problem

Answer = tuple[int, list[tuple[str, str]], bytes]
# Answers below this are not worth counting against the memory budget.
SMALL_ANSWER_BYTES = 2**16


class Bridge:
    """A WSGI application as an ASGI handler."""

    def __init__(self, application: WSGIApplication, limits: Limits) -> None:
        self._application = application
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.flask_threads, thread_name_prefix="flask")
        self._waiting = 0

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request with Flask.

        Raises:
            Problem: `busy` when too many wait for a thread.
        """
        if self._waiting >= self._limits.flask_queue:
            raise Problem("busy", f"{self._waiting} requests wait for a thread")
        body = await exchange.small_body()
        environ = _environ(exchange, body)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            status, headers, answer = await loop.run_in_executor(self._pool, self._run, environ)
        finally:
            self._waiting -= 1
        await _respond(exchange, status, headers, answer)

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, environ: dict[str, Any]) -> Answer:
        started: list[tuple[int, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: object = None
        ) -> Any:
            started[:] = [(int(status.split(" ", 1)[0]), headers)]

        chunks: Iterable[bytes] = self._application(environ, start_response)
        try:
            answer = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        status, headers = started[0]
        return status, headers, answer


async def _respond(
    exchange: Exchange, status: int, headers: list[tuple[str, str]], answer: bytes
) -> None:
    counted = len(answer) if len(answer) > SMALL_ANSWER_BYTES else 0
    exchange.budget.take(counted)
    try:
        if exchange.method == "HEAD" or status == 304:
            await exchange.start(status, headers)
            await exchange.write(b"", more=False)
        else:
            await exchange.respond(status, headers, answer)
    finally:
        exchange.budget.give(counted)


def _environ(exchange: Exchange, body: bytes) -> dict[str, Any]:
    scope = exchange.scope
    server = scope.get("server") or ("localhost", 80)
    client = scope.get("client") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": exchange.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": exchange.path.encode("utf-8", "surrogateescape").decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "REMOTE_ADDR": str(client[0]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in exchange.headers.items():
        # An underscore would make `X_A` and `X-A` the same variable.
        if "_" not in name:
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ.pop("HTTP_CONTENT_LENGTH", None)
    environ["CONTENT_LENGTH"] = str(len(body))
    return environ
