"""Who may call: checks of `Host` and `Origin` against DNS rebinding and foreign sites.

A page of another site can make a browser send requests here. It can't choose
`Host` (the browser does), `Origin` or `Sec-Fetch-Site`: a name that isn't ours
in `Host` is DNS rebinding, a foreign `Origin` on a request that changes
something is cross-site request forgery.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from webui.problems import Problem

# Verdicts about the `Host` values seen last: a client sends the same one each time.
HOSTS_REMEMBERED_MAX = 256
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def own_names() -> frozenset[str]:
    """Names by which this machine is called, without asking any DNS server."""
    name = socket.gethostname().lower()
    short = name.split(".", 1)[0]
    return frozenset({"localhost", name, short, f"{short}.local"})


def split_host(value: str) -> str:
    """Return the host of a `Host` value in lower case, without port and brackets.

    Raises:
        ValueError: it isn't HOST or HOST:PORT.
    """
    parts = urlsplit(f"//{value}")
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        raise ValueError(value)
    _ = parts.port  # raises where the port isn't one
    if not parts.hostname:
        raise ValueError(value)
    return parts.hostname.rstrip(".").lower()


@lru_cache(maxsize=HOSTS_REMEMBERED_MAX)
def _allowed(value: str, names: frozenset[str]) -> tuple[bool, str]:
    """Whether this `Host` may call, and which host it names; raises like `split_host`."""
    host = split_host(value)
    return host in names or host.endswith(".localhost") or _is_address(host), host


def check_host(value: str | None, names: frozenset[str]) -> None:
    """Let IP literals, `localhost`, `*.localhost` and `names` pass.

    Raises:
        Problem: `bad_request` without a readable Host, `host_not_allowed` for others.
    """
    try:
        allowed, host = _allowed(value or "", names)
    except ValueError:
        raise Problem("bad_request", f"the Host header {value!r} can't be read") from None
    if allowed:
        return
    raise Problem(
        "host_not_allowed",
        f"the Host {host!r} isn't a name of this server; "
        f"start it with --allow-host {host} if it should be",
    )


def check_origin(method: str, headers: Mapping[str, str], *, guard_reads: bool = False) -> None:
    """Refuse requests that change something and come from another site's page.

    `guard_reads` treats a GET like a change (one that starts work).

    Raises:
        Problem: `cross_origin`.
    """
    if method in SAFE_METHODS and not guard_reads:
        return
    origin = headers.get("origin")
    if origin is not None and not _same_origin(origin, headers.get("host", "")):
        raise Problem("cross_origin", f"the Origin {origin!r} isn't this server")
    if headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
        raise Problem("cross_origin", "the browser says that another site sent this request")


def _same_origin(origin: str, host: str) -> bool:
    # The scheme is left out: behind a TLS proxy ours is http and the browser's https.
    return urlsplit(origin).netloc.lower() == host.lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return False
    return True
