"""One HTTP request and its answer, both bounded in size and in time.

Owns the connections. Promises that every way in which an answer can get lost
ends as `Lost`, within the time that was given. Leaves what to do next to `journey`.
"""

from __future__ import annotations

import asyncio
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


class Transport:
    """Connections to one server. Use as an async context manager, in one event loop."""

    def __init__(self, server: str, limits: Limits, connections: int = CONCURRENCY_MAX) -> None:
        self._limits = limits
        bounds = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # With a transport of our own httpx would leave out the proxies of the environment.
        direct = None if getproxies() else _direct(bounds)
        self._http = httpx.AsyncClient(
            base_url=server + API,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            limits=bounds,
            transport=direct,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

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
        try:
            async with (
                asyncio.timeout(total_s),
                self._http.stream(
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

    async def _read(self, response: httpx.Response) -> Answer:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > self._limits.answer_bytes:
                raise Lost(f"the answer has over {self._limits.answer_bytes} bytes")
        headers = response.headers
        wait_s = retry_after_s(headers.get("retry-after", ""), headers.get("date", ""))
        return Answer(response.status_code, bytes(body), wait_s, headers.get("location", ""))


def _direct(bounds: httpx.Limits) -> httpx.AsyncHTTPTransport:
    transport = httpx.AsyncHTTPTransport(limits=bounds, socket_options=options())
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
