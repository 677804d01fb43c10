"""One worker over several connections ("streams"): the decisions that both ends share.

Owns which stream carries the next message, which messages a stream that ends
has to leave to the others, how much of what is sent gets lost, and how many
streams that asks for. Pure: the shells bring sockets, counters and the time.

Why several: TCP waits after a loss that its acknowledgements can't show, and
doubles that wait each time; one stream that waits delays whatever is behind
it. Streams wait independently of each other (see docs/netem.md for figures).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

UNCONFIRMED_MAX: Final = 16_384
"""Messages that may wait for the proof that they arrived; a stream with more is given up."""
STREAMS_PER_WORKER_MAX: Final = 32
"""What a master takes and a worker may be told to open."""
STREAMS_AUTO_MAX: Final = 16
"""What the loss alone leads to."""
STALL_S: Final = 2.5
"""A stream over which nothing came for so long, while others live, is in TCP's backoff."""
WINDOW_S: Final = 10.0
"""Half of what the loss meter knows is forgotten within so long."""
SEGMENTS_KEPT_MAX: Final = 1000.0
"""No more than so many of earlier segments count beside new ones. A link that gets worse carries
few segments, and those of its good time would hide it for half a minute (measured: from 10 to
20 % loss one stream fell to 4 Mbit/s, and was still alone after 18 s)."""
SEGMENTS_MIN: Final = 20.0
"""Fewer segments say nothing about the share that gets lost."""
CALM_S: Final = 30.0
"""Streams are closed only after the loss has been low for so long."""

BACKLOG_AGE_S: Final = 0.05
"""For so long a stream's backlog is counted and not asked of the kernel. Asked for each of
16 streams with each message, it took a third of both ends' time (measured inside User-Mode
Linux at 10 % loss), and the link lay idle meanwhile."""
SMALL_BYTES: Final = 200
"""What a message without an image counts for."""


@dataclass(frozen=True, slots=True)
class Step:
    """From this share of segments sent again on, so many streams."""

    share: float
    streams: int


STEPS: Final = (Step(0.13, STREAMS_AUTO_MAX),)
"""Measured with `python -m tests.bench streams`; see docs/netem.md."""
RELAX: Final = 0.5
"""The share has to fall below this part of a step's to leave it: no flapping at the edge."""


@dataclass(frozen=True, slots=True)
class Load:
    """One open stream: how long nothing came over it, and what it still has to deliver."""

    silence_s: float
    backlog_bytes: int


def choose(loads: Iterable[Load]) -> int:
    """Position of the stream for the next message: lively, then least to deliver, then first."""
    return min(
        enumerate(loads),
        key=lambda item: (item[1].silence_s >= STALL_S, item[1].backlog_bytes, item[0]),
    )[0]


class Backlog:
    """The bytes that one stream still has to deliver: now and then as the kernel says, and what
    was sent since."""

    __slots__ = ("_asked_at", "_bytes")

    def __init__(self) -> None:
        self._asked_at = -math.inf
        self._bytes = 0

    def read(self, ask: Callable[[], int], now: float) -> int:
        """The bytes; `ask` is called if what it last said is old."""
        if now - self._asked_at >= BACKLOG_AGE_S:
            self._bytes, self._asked_at = ask(), now
        return self._bytes

    def sent(self, message_bytes: int) -> None:
        """So many bytes more are to be delivered."""
        self._bytes += message_bytes


class Unconfirmed(Generic[T]):
    """What was sent over one stream and is not known to have arrived.

    A stream delivers in order. So the answer to a mark (a heartbeat, its ack)
    proves that all that was sent ahead of that mark has arrived.
    """

    __slots__ = ("_items", "_marks", "_removed")

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._marks: deque[tuple[int, int]] = deque(maxlen=UNCONFIRMED_MAX)
        self._removed = 0

    def __len__(self) -> int:
        return len(self._items)

    def sent(self, *items: T) -> bool:
        """Note messages; False if too many wait already: the stream is to be given up."""
        self._items += items
        return len(self._items) <= UNCONFIRMED_MAX

    def mark(self, number: int) -> None:
        """Mark `number` was sent, behind all that was noted. Numbers rise."""
        self._marks.append((number, self._removed + len(self._items)))

    def confirm(self, number: int) -> None:
        """The peer has seen mark `number`."""
        while self._marks and self._marks[0][0] <= number:
            _, total = self._marks.popleft()
            while self._removed < total:
                self._items.popleft()
                self._removed += 1

    def take(self) -> list[T]:
        """All that is unconfirmed, in order, when the stream has ended."""
        left = list(self._items)
        self._removed += len(left)
        self._items.clear()
        self._marks.clear()
        return left


class LossMeter:
    """The share of segments sent again lately, over all streams of one worker.

    Counts with exponential forgetting, by time and by segments. It is an estimate of the
    loss in one direction: each lost segment is sent again once or more.
    """

    __slots__ = ("_at", "_repeats", "_segments")

    def __init__(self, now: float) -> None:
        self._at = now
        self._segments = 0.0
        self._repeats = 0.0

    def add(self, segments: int, repeats: int, now: float) -> None:
        """So many segments were sent since the last call, so many of them again."""
        kept = 0.5 ** (max(0.0, now - self._at) / WINDOW_S)
        if self._segments * kept > SEGMENTS_KEPT_MAX:
            kept = SEGMENTS_KEPT_MAX / self._segments
        self._at = now
        self._segments = self._segments * kept + max(0, segments)
        self._repeats = self._repeats * kept + max(0, repeats)

    @property
    def share(self) -> float | None:
        """From 0 to 1; None while too little was sent to say."""
        if self._segments < SEGMENTS_MIN:
            return None
        return min(1.0, self._repeats / self._segments)


class StreamPlan:
    """How many streams the loss asks for: more at once, fewer only after a calm time."""

    __slots__ = ("_calm_since", "streams")

    def __init__(self) -> None:
        self.streams = 1
        self._calm_since: float | None = None

    def update(self, share: float | None, now: float) -> int:
        """Judge the share of `LossMeter` at `now`; None changes nothing."""
        if share is None:
            return self.streams
        wanted = _streams_for(share)
        kept = _streams_for(share / RELAX)
        if wanted >= self.streams:
            self.streams, self._calm_since = wanted, None
        elif kept >= self.streams:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_S:
            self.streams, self._calm_since = kept, None
        return self.streams


def _streams_for(share: float) -> int:
    return max((step.streams for step in STEPS if share >= step.share), default=1)
