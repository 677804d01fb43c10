"""Fetch an image from a URL without becoming a way into the local network.

Only http and https. The name is resolved once, every address it has is
checked, and the connection goes to the address that was checked: the check
sits in the network backend under the HTTP client, so that it holds for each
redirect and for names that resolve differently the second time. `Host` and
the TLS server name stay those of the URL. Size, time and redirects are capped,
and no proxy from the environment is used (it would resolve by itself).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote, urljoin

import httpcore
import httpx

from webui import addresses
from webui.config import Limits
from webui.problems import Problem

Resolver = Callable[[str, int], Awaitable[list[str]]]
Refusal = Callable[[str], str | None]
REDIRECTS = frozenset({301, 302, 303, 307, 308})
URL_CHARS_MAX = 4096
# What is left of a host after IDNA: a name, an IPv4 address, or an IPv6 one.
HOST = re.compile(r"^[a-z0-9._-]{1,253}$|^[0-9a-f:.%]{2,64}$")


def allow_any(address: str) -> str | None:
    """Refuse nothing: for labs, with `--allow-private-urls`."""
    return None


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes behind a URL, with a name for people."""

    name: str
    media_type: str
    data: bytes


class AddressRefused(OSError):
    """The name leads to an address that isn't allowed."""


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver for all addresses of a name."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections only to addresses that are allowed."""

    def __init__(
        self, resolver: Resolver, refusal: Refusal, inner: httpcore.AsyncNetworkBackend
    ) -> None:
        self._resolver = resolver
        self._refusal = refusal
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to the first one that answers."""
        found = await self._resolver(host, port)
        self._check(host, found)
        last: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in found[:4]:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as fault:
                last = fault
        raise last

    def _check(self, host: str, found: list[str]) -> None:
        # One refused address refuses the name: a mix of public and private ones
        # is what an attack looks like.
        for address in found:
            why = self._refusal(address)
            if why is not None:
                raise AddressRefused(f"{host} leads to {why}")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never: a URL must not reach a socket of this machine."""
        raise AddressRefused(f"a Unix socket {path!r} isn't a URL")

    async def sleep(self, seconds: float) -> None:
        """Sleep, for the client's own retries."""
        await asyncio.sleep(seconds)


class Fetcher:
    """Fetches images, a bounded number at a time."""

    def __init__(
        self,
        limits: Limits,
        *,
        resolver: Resolver = resolve,
        refusal: Refusal = addresses.refusal,
    ) -> None:
        self._limits = limits
        self._backend = CheckedBackend(resolver, refusal, httpcore.AnyIOBackend())
        self._places = asyncio.Semaphore(limits.fetches)

    async def fetch(self, url: str, timeout_s: float | None = None) -> Fetched:
        """Return the image behind `url`.

        Raises:
            Problem: `url_invalid`, `url_refused`, `url_not_an_image`,
                `url_too_large`, `url_unreachable` or `url_timeout`.
        """
        limit_s = min(self._limits.fetch_s, timeout_s or self._limits.fetch_s)
        began = time.monotonic()
        try:
            async with asyncio.timeout(limit_s), self._places:
                return await self._follow(url, began + limit_s)
        except (TimeoutError, httpcore.TimeoutException):
            raise Problem("url_timeout", f"no image came within {limit_s:g} s") from None
        except AddressRefused as fault:
            raise Problem(
                "url_refused", f"{fault}; --allow-private-urls of the server allows that"
            ) from None
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError, UnicodeError) as fault:
            raise Problem("url_unreachable", _reason(fault)) from None

    async def _follow(self, url: str, deadline: float) -> Fetched:
        for _ in range(self._limits.fetch_redirects + 1):
            parsed = check_url(url)
            async with self._get(parsed, deadline) as response:
                location = _header(response, b"location")
                if response.status in REDIRECTS and location:
                    url = urljoin(str(parsed), location)
                    continue
                return await self._read(parsed, response)
        raise Problem("url_unreachable", f"more than {self._limits.fetch_redirects} redirects")

    @asynccontextmanager
    async def _get(self, url: httpx.URL, deadline: float) -> AsyncIterator[httpcore.Response]:
        left_s = max(0.1, deadline - time.monotonic())
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), left_s)
        headers = [
            (b"host", url.netloc),
            (b"accept", b"image/*, application/octet-stream;q=0.5"),
            (b"accept-encoding", b"identity"),
            (b"user-agent", b"lookout"),
        ]
        async with (
            httpcore.AsyncConnectionPool(ssl_context=_tls(), network_backend=self._backend) as pool,
            pool.stream(
                "GET",
                httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=headers,
                extensions={"timeout": timeouts},
            ) as response,
        ):
            yield response

    async def _read(self, url: httpx.URL, response: httpcore.Response) -> Fetched:
        if response.status != 200:
            raise Problem("url_unreachable", f"{url.host} answered {response.status}")
        media_type = _image_type(_header(response, b"content-type"))
        if (_header(response, b"content-encoding") or "identity").lower() != "identity":
            raise Problem("url_not_an_image", f"{url.host} sent a compressed body unasked")
        pieces: list[bytes] = []
        size = 0
        async for piece in response.aiter_stream():
            size += len(piece)
            if size > self._limits.fetch_bytes:
                raise Problem("url_too_large", f"more than {self._limits.fetch_bytes} bytes")
            pieces.append(piece)
        return Fetched(_name(url), media_type, b"".join(pieces))


def check_url(text: str) -> httpx.URL:
    """Parse a URL that may be fetched.

    Raises:
        Problem: `url_invalid`.
    """
    if len(text) > URL_CHARS_MAX:
        raise Problem("url_invalid", f"the URL is longer than {URL_CHARS_MAX} characters")
    try:
        url = httpx.URL(text.strip())
    except (httpx.InvalidURL, ValueError) as fault:
        raise Problem("url_invalid", f"{text!r} isn't a URL: {fault}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise Problem("url_invalid", f"{text!r} isn't an http or https URL")
    if HOST.match(url.raw_host.decode("latin-1")) is None or (url.port or 80) > 65535:
        raise Problem("url_invalid", f"{url.host[:253]!r} isn't a host")
    if url.userinfo:
        raise Problem("url_invalid", "a URL with a user name or password isn't taken")
    return url


@cache
def _tls() -> ssl.SSLContext:
    # Reading the certificate authorities takes long: once a process, when first needed.
    return httpcore.default_ssl_context()


def _header(response: httpcore.Response, name: bytes) -> str | None:
    for key, value in response.headers:
        if key.lower() == name:
            return value.decode("latin-1")
    return None


def _image_type(header: str | None) -> str:
    media_type = (header or "application/octet-stream").split(";")[0].strip().lower()
    if media_type.startswith("image/") or media_type in {
        "application/octet-stream",
        "binary/octet-stream",
    }:
        return media_type
    raise Problem("url_not_an_image", f"the URL leads to {media_type!r}, not to an image")


def _name(url: httpx.URL) -> str:
    last = unquote(url.path.rsplit("/", 1)[-1])
    return last[:255] or url.host


def _reason(fault: Exception) -> str:
    return str(fault) or type(fault).__name__
