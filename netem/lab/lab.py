"""A lab from outside: make one, find one, drive its links, run commands in its hosts.

    with Lab.up(star(workers=2, link=Duplex.both(parse("delay=5ms loss=1%")))) as lab:
        master = subprocess.Popen(lab.command("master", ["master", "up"]))
        lab.cut("worker-1")

A command in a host is an ordinary child of whoever starts it: its id, signals and
exit status are its own, as `command` only enters the host and becomes it. When
the process that made the lab ends, however it ends, so does the lab.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import msgspec

from netem.errors import NetemError
from netem.lab import channel, folder, processes
from netem.lab.messages import (
    Change,
    Cut,
    Done,
    Down,
    Heal,
    LinkState,
    Observe,
    Order,
    Record,
    Renew,
    Request,
    State,
)
from netem.lab.topology import Topology
from netem.spec import Duplex

UP_TIMEOUT_S: Final = 180.0
"""A second on an ordinary machine; User-Mode Linux beside busy processes needs a minute."""


class Lab:
    """One lab that is up; a context manager that ends it."""

    def __init__(self, record: Record, keeper: subprocess.Popen[bytes] | None = None) -> None:
        self.record = record
        self.topology = record.topology
        self.name = record.topology.name
        self._keeper = keeper

    @classmethod
    def up(cls, topology: Topology, *, owner_pid: int | None = None) -> Self:
        """Build a lab and wait until it is there.

        It ends with the process `owner_pid`: this one by default, and 0 for a lab
        that only its `ttl_s` and `down` end.

        Raises:
            Refused: there is a lab of that name.
            MissingFeature: this machine can't make one; the message says why.
        """
        path = folder.create(topology.name)
        owner = os.getpid() if owner_pid is None else owner_pid
        order = Order(topology, secrets.token_hex(8), str(path), owner)
        keeper = _start_keeper(order, path)
        try:
            _await_up(keeper, topology.name, path)
        except BaseException:
            keeper.terminate()
            keeper.wait()
            folder.remove(path)
            raise
        return cls(folder.read(topology.name), keeper)

    @classmethod
    def find(cls, name: str) -> Self:
        """A lab that somebody made.

        Raises:
            NetemError: there is none of that name.
        """
        return cls(folder.read(name))

    # --- the links -------------------------------------------------------------------------

    def set(self, host: str, link: Duplex) -> float:
        """Give a host's link new LinkSpecs; returns the monotonic time when they held.

        A cut link stays cut until `heal`.

        Raises:
            BadSpec: there is no such host.
            NetemError: it could not be done, or the lab is gone.
        """
        return self._do(Change(host, link))

    def cut(self, host: str) -> float:
        """Let nothing through to or from a host; returns and raises as `set`."""
        return self._do(Cut(host))

    def heal(self, host: str) -> float:
        """Undo `cut`; returns and raises as `set`."""
        return self._do(Heal(host))

    def status(self) -> dict[str, LinkState]:
        """By host: what was requested, and the LinkSpecs and counters that there are.

        Counters begin anew with each `set`, `cut` and `heal` of that host.

        Raises:
            NetemError: the lab is gone.
        """
        return self.state().links

    def state(self) -> State:
        """`status`, and for how long the lab still lives."""
        answer = self._ask(Observe())
        assert isinstance(answer, State)
        return answer

    def renew(self, ttl_s: float) -> float:
        """Let the lab live for `ttl_s` from now on; returns and raises as `set`."""
        return self._do(Renew(ttl_s))

    # --- the hosts -------------------------------------------------------------------------

    def address(self, host: str) -> str:
        """IPv4 address of a host; inside the lab its name does as well.

        Raises:
            BadSpec: there is no such host.
        """
        return self.topology.host(host).address

    def command(
        self, host: str, argv: Sequence[str], *, cwd: str | Path | None = None
    ) -> list[str]:
        """`argv` as it has to be started to run in a host, for any way of starting processes.

        The process has the host's network, name and `/etc/hosts`; files, users and
        process ids are the machine's. It runs in `cwd`, this process's by default.

        Raises:
            BadSpec: there is no such host.
        """
        self.topology.host(host)
        entrance = self.record.entrances[host]
        keeper = f"/proc/{self.record.keeper_pid}"
        user = [f"--user={keeper}/ns/user", "--preserve-credentials"]
        return [
            "nsenter",
            *(user if self.record.own_user_namespace else ()),
            f"--net={keeper}/fd/{entrance.net_fd}",
            f"--uts={keeper}/fd/{entrance.uts_fd}",
            f"--mount={keeper}/ns/mnt",
            "--",
            "env",
            f"--chdir={Path(cwd or Path.cwd()).absolute()}",
            f"{processes.MARK}={self.record.lab_id}",
            *argv,
        ]

    @contextmanager
    def forward(self, host: str, port: int, local_port: int = 0) -> Iterator[int]:
        """While the block runs, 127.0.0.1 at the port given is `port` of a host.

        Connections go straight into the host, past its link. A free local port is
        taken unless one is named. The service in the host must listen on its
        loopback or on every address.

        Raises:
            BadSpec: there is no such host.
            OSError: the local port is taken.
        """
        with socket.create_server(("127.0.0.1", local_port)) as listener:
            taken: int = listener.getsockname()[1]
            argv = [sys.executable, "-m", "netem.lab.relay", str(listener.fileno()), str(port)]
            relay = subprocess.Popen(self.command(host, argv), pass_fds=[listener.fileno()])
        try:
            yield taken
        finally:
            relay.terminate()
            relay.wait()

    def pids(self) -> list[int]:
        """Ids of the processes that run in the hosts now."""
        return processes.inside({e.net_id for e in self.record.entrances.values()})

    # --- the end ---------------------------------------------------------------------------

    def down(self) -> None:
        """End every process of the lab and the lab; what a crash left of one, too.

        Raises:
            NetemError: a process does not end.
        """
        if self.is_kept:
            self._ask(Down())
            self._await_end()
        else:
            self._sweep()

    @property
    def is_kept(self) -> bool:
        """True while the process that keeps the lab lives."""
        if self._keeper is not None:
            return self._keeper.poll() is None
        return _is_kept(self.record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def _sweep(self) -> None:
        """End what a killed keeper left.

        Its namespaces may be gone and their numbers given to others by now, so here
        a process must also carry the mark of this lab.
        """
        if self.record.boot_id == processes.boot_id():
            net_ids = {entrance.net_id for entrance in self.record.entrances.values()}
            processes.kill_inside(
                net_ids, but=lambda pid: not processes.marked(pid, self.record.lab_id)
            )
        folder.remove(folder.root() / self.name)

    def _await_end(self) -> None:
        if self._keeper is not None:
            self._keeper.wait(channel.ANSWER_TIMEOUT_S)

    # --- the keeper ------------------------------------------------------------------------

    def _do(self, request: Request) -> float:
        answer = self._ask(request)
        assert isinstance(answer, Done)
        return answer.at_s

    def _ask(self, request: Request) -> State | Done:
        return channel.ask(folder.root() / self.name / folder.SOCKET, self.name, request)


def down(name: str) -> bool:
    """End the lab of this name, or what a crash left of it; False if there is nothing.

    Raises:
        NetemError: a process does not end.
    """
    if name not in folder.names():
        return False
    try:
        lab = Lab.find(name)
    except NetemError:
        # Its keeper ended before it had built anything, or builds right now.
        folder.remove(folder.root() / name)
        return True
    lab.down()
    return True


def _is_kept(record: Record) -> bool:
    if record.boot_id != processes.boot_id():
        return False
    try:
        return processes.start_ticks(record.keeper_pid) == record.keeper_start_ticks
    except ProcessLookupError:
        return False


def _start_keeper(order: Order, path: Path) -> subprocess.Popen[bytes]:
    with (path / folder.LOG).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "netem.lab.keeper", msgspec.json.encode(order).decode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


def _await_up(keeper: subprocess.Popen[bytes], name: str, path: Path) -> None:
    """Wait for the keeper's one line.

    Raises:
        NetemError: the lab could not be built; with the keeper's reason.
    """
    assert keeper.stdout is not None
    try:
        with keeper.stdout as stdout:
            answer = channel.first_answer(stdout, UP_TIMEOUT_S)
    except TimeoutError:
        raise NetemError("slow", f"lab {name} was not up within {UP_TIMEOUT_S:.0f} s") from None
    if answer is None:
        said = (path / folder.LOG).read_text(errors="replace") if path.exists() else ""
        raise NetemError("keeper", f"the keeper of lab {name} ended: {said.strip() or 'silently'}")
