"""Addresses as people write them: `HOST[:PORT]`, `[v6]:PORT`, `unix:/path`.

Owns parsing and printing. Leaves name resolution to the shells.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from wire.errors import EnvironmentFault

DEFAULT_PORT = 6550
UNIX_PREFIX = "unix:"
UNIX_PATH_BYTES_MAX = 107
"""`sun_path` of Linux has 108 bytes with its closing zero."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name or IP, without brackets) and a port; port 0 binds any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return UNIX_PREFIX + self.path


Address = TcpAddress | UnixAddress


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Read one address.

    Raises:
        EnvironmentFault: `bad_address`, naming what was given and what is understood.
    """
    if text.startswith(UNIX_PREFIX):
        return _unix(text)
    host, port = _split(text)
    if not host or any(c.isspace() or c in "/@?#[]" for c in host):
        raise _bad(text, "the host is missing or has characters that no host has")
    return TcpAddress(host, default_port if port is None else _port(text, port))


def format_address(address: Address) -> str:
    """The text that `parse_address` reads back."""
    return str(address)


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            raise _bad(text, "brackets hold an IPv6 address")
        return host, rest[1:] if rest else None
    if _is_ipv6(text):
        return text, None
    if text.count(":") > 1:
        raise _bad(text, "an IPv6 address with a port needs brackets")
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise _bad(text, f"the port {port!r} is not a number from 0 to 65535")
    return int(port)


def _unix(text: str) -> UnixAddress:
    path = text.removeprefix(UNIX_PREFIX)
    if not path or "\0" in path:
        raise _bad(text, "the path is missing")
    if len(path.encode()) > UNIX_PATH_BYTES_MAX:
        raise _bad(text, f"a socket's path has at most {UNIX_PATH_BYTES_MAX} bytes")
    return UnixAddress(path)


def _bad(text: str, why: str) -> EnvironmentFault:
    return EnvironmentFault(
        "bad_address",
        f"{text!r} is no address: {why}; write HOST, HOST:PORT, [IPv6]:PORT or unix:/path",
    )
