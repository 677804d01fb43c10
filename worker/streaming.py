"""How many streams a worker keeps, and which it replaces: pure decisions.

Leaves dialling and sockets to `worker.bundle`, the meaning of loss to `wire.streams`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from wire.streams import STALL_S
from worker.backoff import Backoff

DIALS_MAX = 4
"""Connections in the making at once: on a bad link each of them adds to the load."""
RACING_DIALS = 3
"""Connections in the making at once while no stream is lively: on a link that loses 30 % each way
every second dial needs seconds for its handshake alone, and silence of 10 s is a death."""
DIAL_BACKOFF_BASE_S = 0.5
DIAL_BACKOFF_CAP_S = 5.0


@dataclass(frozen=True, slots=True)
class StreamView:
    """One open stream: its number and for how long nothing came over it."""

    number: int
    silence_s: float


@dataclass(frozen=True, slots=True)
class Dial:
    """Open one more stream; the master ends the one that it `replaces`, if any, at once."""

    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Shut:
    """End this stream: there are more than the link needs."""

    number: int


Step = Dial | Shut


class Keeper:
    """Decides, each time it is asked, what to open and what to end. Times are monotonic seconds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._backoff = Backoff(DIAL_BACKOFF_BASE_S, DIAL_BACKOFF_CAP_S)
        self._dial_at = 0.0
        self._dialling: list[Dial] = []

    @property
    def dialling(self) -> int:
        """Streams in the making."""
        return len(self._dialling)

    @property
    def replacing(self) -> bool:
        """A stream in the making is to stand in for another: that one may end any moment."""
        return any(dial.replaces is not None for dial in self._dialling)

    def decide(self, views: Sequence[StreamView], wanted: int, now: float) -> list[Step]:
        """What to do so that `wanted` lively streams are there. Each `Dial` must be answered
        by `dialled`."""
        stalled = [view for view in views if view.silence_s >= STALL_S]
        lively = sorted(view.number for view in views if view.silence_s < STALL_S)
        if len(lively) > wanted:
            return [Shut(number) for number in lively[wanted:]]
        if now < self._dial_at:
            return []
        steps = self._replacements(stalled)
        more = [dial for dial in self._dialling if dial.replaces is None]
        steps += [Dial()] * (wanted - len(views) - len(more))
        if stalled and not lively:
            # Those that come too late are shut again.
            steps += [Dial()] * (RACING_DIALS - len(self._dialling) - len(steps))
        steps = steps[: DIALS_MAX - len(self._dialling)]
        self._dialling += steps
        return list(steps)

    def _replacements(self, stalled: Sequence[StreamView]) -> list[Dial]:
        """The longest silent first; one dial each."""
        under_way = {dial.replaces for dial in self._dialling}
        silent = sorted(stalled, key=lambda view: -view.silence_s)
        return [Dial(view.number) for view in silent if view.number not in under_way]

    def dialled(self, dial: Dial, succeeded: bool, now: float) -> None:
        """A dial came to its end."""
        self._dialling.remove(dial)
        if succeeded:
            self._backoff.reset()
            self._dial_at = now
        else:
            self._dial_at = now + self._backoff.next_delay_s(self._rng)
