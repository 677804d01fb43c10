"""One HTTP request and its answer, both bounded in size and in time.

Owns the connections. Promises that every way in which an answer can get lost
ends as `Lost`, within the time that was given. Leaves what to do next to `journey`.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Self
from urllib.request import getproxies

import httpcore
import httpx

from client.config import CONCURRENCY_MAX, Limits
from client.errors import BadInput
from client.job import Problem, read
from client.racing import RacingBackend
from client.sockets import options

API = "/api/v1"
# httpcore looks at every connection of a pool for every request in it: with 192 in one pool
# an image cost 12 ms of CPU, with 16 it costs 2.
POOL_CONNECTIONS = 16
# A server that asks for more than a day is asking for something else.
RETRY_AFTER_S_MAX = 86_400.0


class Lost(Exception):
    """There is no answer; whether the server acted on the request is not known."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request under `/api/v1`, the same at every try but for its `params`."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `retry_after_s` is 0 where the server didn't ask for a wait."""

    status: int
    body: bytes
    retry_after_s: float
    location: str

    @property
    def problem(self) -> Problem:
        """The problem of an answer that isn't 2xx; empty where it is not Lookout's."""
        return (read(self.body, Problem) if self.status >= 400 else None) or Problem()


def base_url(text: str) -> str:
    """A server's address without the API's path.

    Raises:
        BadInput: it is no http or https URL.
    """
    hint = "give http://HOST or http://HOST:PORT"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadInput(f"the server {text!r} is no URL ({error}); {hint}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise BadInput(f"the server {text!r} is no http URL; {hint}")
    if url.query or url.fragment:
        raise BadInput(f"the server {text!r} has a query or a fragment; {hint}")
    return str(url).rstrip("/").removesuffix(API)


@dataclass(slots=True)
class _Pool:
    """Some of the connections, and how many requests they carry."""

    http: httpx.AsyncClient
    under_way: int = 0


class Transport:
    """Connections to one server. Use as an async context manager, in one event loop."""

    def __init__(self, server: str, limits: Limits, connections: int = CONCURRENCY_MAX) -> None:
        self._limits = limits
        self._server = server
        self._pools_max = -(-connections // POOL_CONNECTIONS)
        self._pools: list[_Pool] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools:
            await pool.http.aclose()

    async def send(
        self, request: Request, params: Mapping[str, str], *, silent_s: float, total_s: float
    ) -> Answer:
        """Send it once. `silent_s` bounds the wait for the answer, `total_s` everything.

        Raises:
            Lost: no whole answer came, for whatever reason.
        """
        limits = self._limits
        timeout = httpx.Timeout(
            limits.stall_s, connect=limits.connect_s, read=silent_s, pool=total_s
        )
        pool = self._pool()
        pool.under_way += 1
        try:
            async with (
                asyncio.timeout(total_s),
                pool.http.stream(
                    request.method,
                    request.path,
                    params=dict(params),
                    content=request.body or None,
                    headers=request.headers,
                    timeout=timeout,
                ) as response,
            ):
                return await self._read(response)
        except TimeoutError:
            raise Lost(f"no answer within {total_s:.1f} s") from None
        except httpx.RequestError as error:
            raise Lost(_reason(error)) from error
        finally:
            pool.under_way -= 1

    def _pool(self) -> _Pool:
        """The first one with room, so that its connections are used again; else another."""
        for pool in self._pools:
            if pool.under_way < POOL_CONNECTIONS:
                return pool
        if len(self._pools) == self._pools_max:
            return min(self._pools, key=lambda pool: pool.under_way)
        self._pools.append(_Pool(_open(self._server)))
        return self._pools[-1]

    async def _read(self, response: httpx.Response) -> Answer:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > self._limits.answer_bytes:
                raise Lost(f"the answer has over {self._limits.answer_bytes} bytes")
        headers = response.headers
        wait_s = retry_after_s(headers.get("retry-after", ""), headers.get("date", ""))
        return Answer(response.status_code, bytes(body), wait_s, headers.get("location", ""))


def _open(server: str) -> httpx.AsyncClient:
    bounds = httpx.Limits(
        max_connections=POOL_CONNECTIONS, max_keepalive_connections=POOL_CONNECTIONS
    )
    return httpx.AsyncClient(
        base_url=server + API,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        limits=bounds,
        # With a transport of our own httpx would leave out the proxies of the environment.
        transport=None if getproxies() else _direct(bounds),
        follow_redirects=False,
    )


@functools.cache
def _trust() -> ssl.SSLContext:
    """One for all pools: it holds every root certificate."""
    return httpx.create_ssl_context()


def _direct(bounds: httpx.Limits) -> httpx.AsyncHTTPTransport:
    transport = httpx.AsyncHTTPTransport(verify=_trust(), limits=bounds, socket_options=options())
    # httpx hands no backend through; `test_sockets` sees whether this still takes hold.
    pool = transport._pool
    assert isinstance(pool, httpcore.AsyncConnectionPool)
    pool._network_backend = RacingBackend(httpcore.AnyIOBackend())
    return transport


def retry_after_s(value: str, date: str) -> float:
    """Seconds of a `Retry-After`, which is a number or a date; 0 for none and for nonsense.

    A date is compared with the server's own `Date`: our clock may be another.
    """
    if value.strip().isascii() and value.strip().isdigit():
        return min(float(value), RETRY_AFTER_S_MAX)
    try:
        left = parsedate_to_datetime(value) - parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return 0.0
    return min(max(0.0, left.total_seconds()), RETRY_AFTER_S_MAX)


def _reason(error: httpx.RequestError) -> str:
    """A sentence; httpx leaves the text of some errors empty."""
    text = str(error).strip()
    names: dict[type[httpx.RequestError], str] = {
        httpx.ConnectTimeout: "no connection in time",
        httpx.ReadTimeout: "the answer did not come in time",
        httpx.WriteTimeout: "the server stopped reading",
        httpx.ReadError: "the connection broke",
        httpx.WriteError: "the connection broke",
    }
    return text or names.get(type(error), type(error).__name__)
