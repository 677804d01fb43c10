"""Addresses that can be had, and those that can not."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.unit.wire.link import TOKEN, hello
from tests.unit.wire.shell import (
    ACK,
    BEAT,
    Master,
    Run,
    echo,
    still_serves,
)
from wire import aio
from wire.aio import Limits
from wire.errors import EnvironmentFault, PeerFault


def test_a_port_in_use_is_said(run: Run) -> None:
    async def main() -> None:
        async with await Master().serve() as server:
            with pytest.raises(EnvironmentFault) as caught:
                await Master().serve(str(server.address))
            assert caught.value.code == "address_in_use"

    run(main())


def test_a_live_unix_socket_is_left_alone_and_a_stale_one_is_replaced(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        master = Master(echo)
        async with await master.serve(f"unix:{path}") as server:
            assert path.stat().st_mode & 0o777 == 0o600
            with pytest.raises(EnvironmentFault) as caught:
                await Master().serve(f"unix:{path}")
            assert caught.value.code == "address_in_use"
            await still_serves(server, master)
        assert not path.exists()

    run(main())


def test_a_file_that_is_no_socket_is_left_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")

    async def main() -> None:
        with pytest.raises(EnvironmentFault):
            await Master().serve(f"unix:{path}")

    run(main())
    assert path.read_text() == "data"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6(run: Run) -> None:
    async def main() -> None:
        try:
            server = await Master(echo).serve("[::1]:0")
        except EnvironmentFault as fault:
            pytest.skip(f"this machine has no IPv6 loopback: {fault}")
        async with server:
            worker = await aio.connect(server.address, TOKEN, hello())
            worker.send(BEAT)
            assert await worker.receive() == ACK

    run(main())


def test_nobody_listening_is_said(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with await Master().serve() as server:
            gone = str(server.address)
        for address in (gone, f"unix:{tmp_path}/none"):
            with pytest.raises(EnvironmentFault) as caught:
                await aio.connect(address, TOKEN, hello())
            assert caught.value.code == "unreachable"

    run(main())


def test_a_caller_that_gets_no_answer_gives_up(run: Run) -> None:
    async def main() -> None:
        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        listener = await asyncio.start_server(silence, "127.0.0.1", 0)
        host, port = listener.sockets[0].getsockname()
        with pytest.raises(PeerFault, match="handshake_timeout"):
            await aio.connect(
                f"{host}:{port}", TOKEN, hello(), limits=Limits(handshake_timeout_s=0.1)
            )
        listener.close()

    run(main())
