"""One link between two hosts, by either backend, and what is measured on it.

Both arenas run the same `peer.py` at both ends, so that what differs is the backend.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol, Self

from netem.backend import LinkReading
from netem.lab import Lab, star
from netem.spec import Duplex
from netem.tc.backend import TcBackend
from tests.netem_root.guest.net import FAR_IP, Pair
from tests.netem_root.labs import lab_name, peer

NEAR, FAR = "near", "far"
_END_TIMEOUT_S: Final = 120.0
_RECEIVE_BYTES: Final = 1 << 25


class Arena(Protocol):
    """Hosts `near` and `far`; the link is the near one's."""

    name: str
    far_address: str

    def set(self, duplex: Duplex) -> None: ...

    def reading(self) -> LinkReading: ...

    def command(self, host: str, argv: Sequence[str]) -> Sequence[str]: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class TcArena:
    """A veth pair, and `sch_netem` at its near end."""

    name = "tc"
    far_address = FAR_IP

    def __init__(self) -> None:
        self._stack, self._backend = ExitStack(), TcBackend()

    def __enter__(self) -> Self:
        self._stack.enter_context(Pair())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def set(self, duplex: Duplex) -> None:
        self._backend.clear(Pair.link)  # counters begin anew
        self._backend.apply(Pair.link, duplex)

    def reading(self) -> LinkReading:
        found = self._backend.observe(Pair.link)
        assert found is not None
        return found

    def command(self, host: str, argv: Sequence[str]) -> Sequence[str]:
        return argv if host == NEAR else ("ip", "netns", "exec", Pair.far, *argv)


class UserspaceArena:
    """A lab of two hosts, whose emulator is the link."""

    name = "userspace"

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        topology = star(lab_name("contract"), workers=1, backend="userspace")
        self._lab = self._stack.enter_context(Lab.up(topology))
        self.far_address = self._lab.address("master")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def set(self, duplex: Duplex) -> None:
        self._lab.set("worker-1", duplex)

    def reading(self) -> LinkReading:
        return self._lab.status()["worker-1"].reading

    def command(self, host: str, argv: Sequence[str]) -> Sequence[str]:
        return self._lab.command("worker-1" if host == NEAR else "master", list(argv))


def give_sockets_room() -> None:
    """Let a receiver that waits for this kernel's one processor lose nothing by itself."""
    Path("/proc/sys/net/core/rmem_max").write_text(f"{_RECEIVE_BYTES}\n")


ARENAS: Final[dict[str, Callable[[], Arena]]] = {"tc": TcArena, "userspace": UserspaceArena}


def datagrams(arena: Arena, count: int, *, gap_us: int) -> dict[str, Any]:
    """Datagrams from near to far: what arrived, and its one-way delays."""
    return _measure(arena, "datagram-sink", "datagrams", str(count), str(gap_us))


def stream(arena: Arena, seconds: float, congestion: str) -> dict[str, Any]:
    """One bulk TCP flow from near to far."""
    return _measure(arena, "stream-sink", "stream", str(seconds), congestion)


def _measure(arena: Arena, sink_role: str, role: str, *arguments: str) -> dict[str, Any]:
    sink = subprocess.Popen(arena.command(FAR, peer(sink_role)), stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    assert sink.stdout.readline() == "READY\n"
    source = arena.command(NEAR, peer(role, arena.far_address, *arguments))
    subprocess.run(source, check=True, timeout=_END_TIMEOUT_S)
    said, _ = sink.communicate(timeout=_END_TIMEOUT_S)
    measured: dict[str, Any] = json.loads(said)
    return measured
