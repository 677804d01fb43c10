"""Listening sockets: bind an address, or say why not and what to do."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

from wire.address import Address, TcpAddress, UnixAddress
from wire.errors import EnvironmentFault

BACKLOG = 1024
"""Connections that the kernel keeps until we accept them; it may cap this itself."""
_CODES = {errno.EADDRINUSE: "address_in_use", errno.EACCES: "address_forbidden"}


def bind(address: Address) -> socket.socket:
    """A non-blocking socket bound to the address; TCP port 0 gets any free one.

    Raises:
        EnvironmentFault: `address_in_use`, `address_forbidden` or `address_unusable`.
    """
    try:
        sock = _unix(address) if isinstance(address, UnixAddress) else _tcp(address)
    except OSError as error:
        code = _CODES.get(error.errno or 0, "address_unusable")
        why = error.strerror or str(error)
        raise EnvironmentFault(
            code, f"can't listen on {address}: {why}; choose another address"
        ) from error
    sock.setblocking(False)
    return sock


def _tcp(address: TcpAddress) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    dual = address.host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(where[:2], family=family, backlog=BACKLOG, dualstack_ipv6=dual)


def _unix(address: UnixAddress) -> socket.socket:
    """Bind with mode 0600, in place of a socket that nobody listens on any more."""
    path = Path(address.path)
    # Connecting to a plain file is refused just as to a stale socket: look before unlinking.
    if path.is_socket():
        _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(address.path)
        path.chmod(0o600)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "a process listens there")
