"""The backend `tc` on this machine, in its own or another network namespace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from netem.backend import LinkReading
from netem.spec import Duplex
from netem.tc import procedure
from netem.tc.command import Command
from netem.tc.runner import LocalRunner, Runner, drive
from netem.tc.state import read_changed


class TcBackend:
    """Promises what `netem.backend.Backend` says; needs root (CAP_NET_ADMIN)."""

    name: Final = "tc"

    def __init__(self, prefix: Sequence[str] = (), *, run: Runner | None = None) -> None:
        """`prefix` leads into a namespace, as `("ip", "netns", "exec", NAME)`."""
        self._run = run if run is not None else LocalRunner(prefix)

    def apply(self, link: str, duplex: Duplex) -> LinkReading:
        """See `Backend.apply`; `link` is the interface."""
        return drive(procedure.apply(link, duplex), self._run)

    def observe(self, link: str) -> LinkReading | None:
        """See `Backend.observe`."""
        return drive(procedure.observe(link), self._run)

    def clear(self, link: str) -> bool:
        """See `Backend.clear`."""
        return drive(procedure.clear(link), self._run)

    def links(self) -> list[str]:
        """Interfaces that `apply` changed and `clear` would restore."""
        return drive(read_changed(), self._run)

    def plan(self, link: str, duplex: Duplex) -> list[Command]:
        """The commands that `apply` would run now; nothing is changed."""
        return [step.do for step in drive(procedure.planned(link, duplex), self._run)]

    def plan_clear(self, link: str) -> list[Command]:
        """The commands that `clear` would run now; nothing is changed."""
        return [step.do for step in drive(procedure.clearing(link), self._run)]

    def guard(self, link: str, ssh_connection: str | None) -> None:
        """Raise Refused where a bad link would cut the user off; see `procedure.guard`."""
        drive(procedure.guard(link, ssh_connection), self._run)
