"""All hosts of an inventory at once: every link as requested, or every link as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, TypeVar

from netem.backend import LinkReading
from netem.errors import NetemError
from netem.remote.inventory import Host
from netem.remote.session import Session, connected
from netem.spec import Duplex
from netem.tc import procedure
from netem.tc.command import Command
from netem.tc.plan import Step

TTL_DEFAULT_S: Final = 3600
TTL_MIN_S: Final = 5
TTL_MAX_S: Final = 7 * 24 * 3600
CHANGE_TTL_S: Final = 120
"""For a change itself: more than all of its commands may take."""

T = TypeVar("T")


class FleetFailed(NetemError):
    """A host failed, and all of them are as they were; `failures` has each host's own error.

    `left` names hosts that could not be put back: their watchdog does it.
    """

    def __init__(self, failures: dict[str, BaseException], left: Sequence[str]) -> None:
        told = "; ".join(f"{name}: {error}" for name, error in failures.items())
        rest = f"; not put back, and left to their watchdogs: {', '.join(left)}" if left else ""
        super().__init__("fleet_failed", f"{told}; every host was put back as it was{rest}")
        self.failures = failures
        self.left = tuple(left)


class Fleet:
    """Sessions with every host; made by `fleet_of`."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = tuple(sessions)

    async def plan(self, duplex: Duplex) -> dict[str, list[Command]]:
        """The commands that `apply` would run on each host."""

        async def one(session: Session) -> list[Command]:
            steps: list[Step] = await session.drive(
                procedure.planned(session.host.interface, duplex)
            )
            return [step.do for step in steps]

        return await self._all(one)

    async def apply(
        self, duplex: Duplex, *, ttl_s: int = TTL_DEFAULT_S, force: bool = False
    ) -> dict[str, LinkReading]:
        """Make every host's link as requested, for `ttl_s` or until `clear`.

        Looks at every host before it changes one. Each host's watchdog is armed
        before its link changes.

        Raises:
            FleetFailed: one failed; all were put back.
        """
        if not force:
            await self._all(self._guard)
        before = await self._all(lambda s: s.drive(procedure.observe(s.host.interface)))
        await self.plan(duplex)
        results = await self._gather(lambda s: self._apply_one(s, duplex, ttl_s))
        failures = {n: r for n, r in results.items() if isinstance(r, BaseException)}
        if failures:
            left = await self._put_back(before)
            raise FleetFailed(failures, left)
        return {n: r for n, r in results.items() if not isinstance(r, BaseException)}

    async def observe(self) -> dict[str, LinkReading | None]:
        """What holds on each host."""
        return await self._all(lambda s: s.drive(procedure.observe(s.host.interface)))

    async def left_s(self) -> dict[str, int | None]:
        """Seconds until each host's watchdog acts."""
        return await self._all(lambda s: s.left_s())

    async def refresh(self, ttl_s: int) -> None:
        """Give every watchdog so many seconds from now."""
        await self._all(lambda s: s.arm(ttl_s))

    async def clear(self) -> dict[str, bool]:
        """Take every link back and end the watchdogs; False where nothing was."""
        return await self._all(self._clear_one)

    async def _guard(self, session: Session) -> None:
        connection = await session.ssh_connection()
        await session.drive(procedure.guard(session.host.interface, connection))

    async def _apply_one(self, session: Session, duplex: Duplex, ttl_s: int) -> LinkReading:
        # The time begins when the link holds; until then nobody may take half of it away.
        await session.arm(max(ttl_s, CHANGE_TTL_S))
        reading: LinkReading = await session.drive(procedure.apply(session.host.interface, duplex))
        if duplex == Duplex():
            await session.disarm()
        else:
            await session.arm(ttl_s)
        return reading

    async def _clear_one(self, session: Session) -> bool:
        cleared: bool = await session.drive(procedure.clear(session.host.interface))
        await session.disarm()
        return cleared

    async def _put_back(self, before: dict[str, LinkReading | None]) -> list[str]:
        """Every host as `before`; names of those where that failed."""

        async def one(session: Session) -> None:
            was = before[session.host.name]
            if was is None:
                await self._clear_one(session)
            else:
                await session.drive(procedure.apply(session.host.interface, was.duplex))

        results = await self._gather(one)
        return [name for name, result in results.items() if isinstance(result, BaseException)]

    async def _all(self, work: Callable[[Session], Awaitable[T]]) -> dict[str, T]:
        """`work` on every host; raises if it failed on one, once it ended on all."""
        results = await self._gather(work)
        failures = {n: r for n, r in results.items() if isinstance(r, BaseException)}
        if failures:
            told = "; ".join(f"{name}: {error}" for name, error in failures.items())
            raise NetemError("hosts_failed", told) from next(iter(failures.values()))
        return {n: r for n, r in results.items() if not isinstance(r, BaseException)}

    async def _gather(
        self, work: Callable[[Session], Awaitable[T]]
    ) -> dict[str, T | BaseException]:
        done = await asyncio.gather(*map(work, self._sessions), return_exceptions=True)
        return {s.host.name: result for s, result in zip(self._sessions, done, strict=True)}


@asynccontextmanager
async def fleet_of(hosts: Sequence[Host]) -> AsyncIterator[Fleet]:
    """Sessions with all `hosts`, or none.

    Raises:
        Unreachable: there is no session with one of them.
    """
    async with AsyncExitStack() as stack:
        # One after the other: a login may ask a key agent, and the first failure ends it.
        yield Fleet([await stack.enter_async_context(connected(host)) for host in hosts])
