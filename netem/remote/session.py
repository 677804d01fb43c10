"""One host over SSH: commands of a procedure, the watchdog, and nothing that decides.

Host keys are checked against the user's `known_hosts` (or the file that the
inventory names), as `ssh` does; a host that is not in it is refused.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncssh

from netem.errors import CommandFailed, NetemError
from netem.remote.inventory import Host
from netem.tc.command import Command, Done, Procedure

CONNECT_TIMEOUT_S: Final = 15.0
COMMAND_TIMEOUT_S: Final = 30.0
KEEPALIVE_S: Final = 5
# A PATH may lack what only root uses (sudo has its own), and we read messages in English.
_SETTINGS: Final = "PATH=$PATH:/usr/sbin:/sbin LC_ALL=C"

T = TypeVar("T")


class Unreachable(NetemError):
    """No SSH session with a host, or it ended in the middle."""


class Session:
    """A connection to one host; made by `connected`."""

    def __init__(self, host: Host, connection: asyncssh.SSHClientConnection) -> None:
        self.host = host
        self._connection = connection

    async def drive(self, procedure: Procedure[T]) -> T:
        """Answer each command of `procedure` by running it there, and return its result."""
        try:
            command = next(procedure)
            while True:
                try:
                    done = await self.run(command)
                except BaseException as error:  # it takes back what it had begun
                    command = procedure.throw(error)
                else:
                    command = procedure.send(done)
        except StopIteration as end:
            result: T = end.value
            return result

    async def run(self, command: Command, *, text: str = "") -> Done:
        """Run one command there, with `text` on its standard input."""
        line = f"{_SETTINGS} {shlex.join(command.argv)}"
        if self.host.sudo:
            line = f"sudo -n env LC_ALL=C {shlex.join(command.argv)}"
        return await self._shell(line, text)

    async def ssh_connection(self) -> str:
        """The variable SSH_CONNECTION there: it says which interface carries this session."""
        return (await self._shell('printf %s "${SSH_CONNECTION-}"', "")).stdout

    async def arm(self, seconds: int) -> None:
        """Have the host take its interface back after `seconds`, whatever becomes of us."""
        await self._watch("arm", str(seconds))

    async def disarm(self) -> None:
        """End the watchdog there."""
        await self._watch("cancel")

    async def left_s(self) -> int | None:
        """Seconds until the watchdog there acts; None if there is none."""
        said = (await self._watch("left")).strip()
        return int(said) if said else None

    async def _watch(self, verb: str, *more: str) -> str:
        """Run `watch.sh` there, out of a folder that is gone afterwards."""
        command = Command(("sh", "-s", "--", verb, self.host.interface, *more), changes=True)
        done = await self.run(command, text=_UNPACK.format(**_scripts()))
        if done.returncode != 0:
            raise CommandFailed(command.argv, done.returncode, done.stderr or done.stdout)
        return done.stdout

    async def _shell(self, line: str, text: str) -> Done:
        # Without input the command must find its end at once, and not wait for more.
        given: dict[str, Any] = {"input": text} if text else {"stdin": asyncssh.DEVNULL}
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                done = await self._connection.run(line, check=False, **given)
        except TimeoutError:
            return Done(124, stderr=f"no end within {COMMAND_TIMEOUT_S} s")
        except (OSError, asyncssh.Error) as error:
            raise Unreachable("ssh", f"{self.host.name}: the session ended: {error}") from error
        status = done.returncode if done.returncode is not None else 255
        return Done(status, _text(done.stdout), _text(done.stderr))


# The two scripts in quotes that end nowhere inside them, unpacked where only root reads.
_UNPACK: Final = """\
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/link.sh" <<'{mark}'
{link}{mark}
cat >"$folder/watch.sh" <<'{mark}'
{watch}{mark}
sh "$folder/watch.sh" "$@"
"""


def _scripts() -> dict[str, str]:
    folder = files("netem") / "scripts"
    link, watch = ((folder / f"{name}.sh").read_text("utf-8") for name in ("link", "watch"))
    mark = "END-OF-NETEM-SCRIPT"
    assert mark not in link + watch
    return {"link": link, "watch": watch, "mark": mark}


@asynccontextmanager
async def connected(host: Host) -> AsyncIterator[Session]:
    """A session with `host`, closed at the end.

    Raises:
        Unreachable: no connection, an unknown host key, or a refused login; says which.
    """
    where = f"{host.name} ({host.user}@{host.address}:{host.port})"
    try:
        connection = await asyncssh.connect(host.address, **_options(host))
    except asyncssh.HostKeyNotVerifiable as error:
        raise Unreachable(
            "host_key",
            f"{where}: its host key is not in known_hosts ({error}): compare it, then add it with "
            f"`ssh-keyscan -p {host.port} {host.address}`",
        ) from error
    except (OSError, asyncssh.Error) as error:
        raise Unreachable("ssh", f"{where}: no SSH session: {error}") from error
    async with connection:
        yield Session(host, connection)


def _options(host: Host) -> dict[str, Any]:
    options: dict[str, Any] = {
        "port": host.port,
        "username": host.user,
        "keepalive_interval": KEEPALIVE_S,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "login_timeout": CONNECT_TIMEOUT_S,
    }
    if host.key_file:
        options["client_keys"] = [str(Path(host.key_file).expanduser())]
    if host.known_hosts:
        options["known_hosts"] = str(Path(host.known_hosts).expanduser())
    return options


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
