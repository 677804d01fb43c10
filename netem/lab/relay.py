"""Pass connections on into a host of a lab: from a socket of outside to a port of inside.

    python -m netem.lab.relay FD PORT

The listening socket comes from outside, as a socket stays in the network where
it was made; connections are made here, where this process was started.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Final

CHUNK_BYTES: Final = 1 << 16


async def relay(listener: socket.socket, port: int) -> None:
    """Serve until this process is ended."""
    server = await asyncio.start_server(lambda r, w: _join(r, w, port), sock=listener)
    async with server:
        await server.serve_forever()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Both directions of one connection, each until its own end."""
    # Whoever calls sees a closed connection, as where nothing listens.
    with contextlib.suppress(OSError), contextlib.closing(writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(inner_writer):
            await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def main() -> None:
    """Relay as the command line says."""
    with socket.socket(fileno=int(sys.argv[1])) as listener, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(relay(listener, int(sys.argv[2])))


if __name__ == "__main__":
    main()
