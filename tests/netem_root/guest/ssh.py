"""A real SSH server on loopback whose commands run in a namespace of the test's choice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from netem.remote.inventory import Host

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Keys:
    """The server's key, the user's key, and the file of hosts that the user knows."""

    server: asyncssh.SSHKey
    user_file: Path
    user: asyncssh.SSHKey

    @classmethod
    def make(cls, folder: Path) -> Keys:
        server, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        user.write_private_key(str(folder / "id"))
        return cls(server, folder / "id", user)


class _Server(asyncssh.SSHServer):
    """Lets in whoever has the user's key, and no one else."""

    def __init__(self, key: asyncssh.SSHKey) -> None:
        self._key = key

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key == self._key.convert_to_public()


@asynccontextmanager
async def served(
    name: str, interface: str, prefix: Sequence[str], keys: Keys, folder: Path
) -> AsyncIterator[Host]:
    """A host that is served while the context lasts: `prefix` leads to its namespace."""

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        peer, own = (process.get_extra_info(key) for key in ("peername", "sockname"))
        child = await asyncio.create_subprocess_exec(
            *(*prefix, "sh", "-c", process.command or "true"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "SSH_CONNECTION": f"{peer[0]} {peer[1]} {own[0]} {own[1]}"},
        )
        output, errors = await child.communicate(await process.stdin.read())
        process.stdout.write(output)
        process.stderr.write(errors)
        process.exit(child.returncode or 0)

    acceptor = await asyncssh.create_server(
        lambda: _Server(keys.user),
        LOOPBACK,
        0,
        server_host_keys=[keys.server],
        process_factory=handle,
        encoding=None,
    )
    port = acceptor.get_port()
    known = folder / f"known-{name}"
    public = keys.server.export_public_key().decode()
    known.write_text(f"[{LOOPBACK}]:{port} {public}")
    async with acceptor:
        yield Host(
            name=name,
            address=LOOPBACK,
            interface=interface,
            port=port,
            key_file=str(keys.user_file),
            known_hosts=str(known),
        )
