"""The connections of one joined worker: which carries what, and what an ended one leaves.

Most workers have one. One on a lossy link opens more ("streams", see
PROTOCOL.md), as `wire.streams` decides from the loss that TCP counts here,
where the images are sent. Owns nothing of the scheduler's: a grant that a
stream left undelivered is handed to whoever dispatches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from master.scheduler.effects import Grant
from wire.aio import Connection
from wire.messages import Assign, Heartbeat, HeartbeatAck, Message
from wire.streams import (
    SMALL_BYTES,
    STREAMS_PER_WORKER_MAX,
    Backlog,
    Load,
    LossMeter,
    StreamPlan,
    Unconfirmed,
    choose,
)
from wire.tcpinfo import TcpInfo, read_tcp_info, unacknowledged_bytes

MEASURE_INTERVAL_S = 1.0
STREAMS_SPARE = 4
"""Streams that are being replaced are open beside the ones that replace them."""

Undelivered = Message | Grant
"""A grant stands for its `Assign`: the image is read again if it has to be sent again."""


@dataclass(slots=True, eq=False)
class Stream:
    """One connection; `heard_at` is when something last came over it."""

    connection: Connection
    heard_at: float
    counted: TcpInfo = field(default_factory=lambda: TcpInfo(0.0, 0, 0))
    backlog: Backlog = field(default_factory=Backlog)
    unconfirmed: Unconfirmed[Undelivered] = field(default_factory=Unconfirmed)


class Streams:
    """All streams of one worker, the oldest first. Times are monotonic seconds."""

    def __init__(self, first: Connection, now: float) -> None:
        self._streams = {first: Stream(first, now)}
        self._capable = first.hello.streams_max > 1
        self._meter = LossMeter(now)
        self._plan = StreamPlan()
        self._measured_at = now
        self._seq = -1

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def share(self) -> float | None:
        """The part of the segments sent lately that had to be sent again; None if too few."""
        return self._meter.share

    def add(self, connection: Connection, now: float) -> list[Connection]:
        """A further connection of this worker; returns those that it replaces."""
        replaces = connection.hello.replaces
        self._streams[connection] = Stream(connection, now)
        return [c for c in self._streams if c.hello.stream in replaces and c is not connection]

    def full(self) -> bool:
        """No further stream is taken."""
        return len(self._streams) >= STREAMS_PER_WORKER_MAX + STREAMS_SPARE

    def remove(self, connection: Connection) -> list[Undelivered]:
        """It has ended; what it may not have delivered, in order."""
        stream = self._streams.pop(connection, None)
        return stream.unconfirmed.take() if stream is not None else []

    def connections(self) -> list[Connection]:
        """All of them, the oldest first."""
        return list(self._streams)

    def send(self, message: Message, now: float, grant: Grant | None = None) -> None:
        """Send over the best stream. `grant` is what an `Assign` carries out."""
        if not self._streams:
            return
        stream = self._best(now)
        if self._capable and not stream.unconfirmed.sent(grant or message):
            stream.connection.abort("too many messages wait for the worker's confirmation")
        stream.backlog.sent(len(message.image) if isinstance(message, Assign) else SMALL_BYTES)
        stream.connection.send(message)

    def beat(self, connection: Connection, beat: Heartbeat, now: float) -> bool:
        """Answer a heartbeat on the stream that brought it; true if it is news."""
        stream = self._streams.get(connection)
        if stream is None:
            return False
        stream.heard_at = now
        if not self._capable:
            connection.send(HeartbeatAck(seq=beat.seq))
            return True
        if beat.heard is not None:
            stream.unconfirmed.confirm(beat.heard)
        self._measure(now)
        stream.unconfirmed.mark(beat.seq)
        connection.send(HeartbeatAck(seq=beat.seq, streams=self._plan.streams))
        # The same beat comes over each stream: the first to arrive counts.
        news, self._seq = beat.seq > self._seq, max(beat.seq, self._seq)
        return news or len(self._streams) == 1

    def rtt_ms(self) -> float | None:
        """The kernel's smoothed round trip of the quickest stream."""
        found = [info.rtt_ms for c in self._streams if (info := read_tcp_info(c.socket))]
        return min(found, default=None)

    def _best(self, now: float) -> Stream:
        streams = list(self._streams.values())
        if len(streams) == 1:
            return streams[0]
        return streams[choose(_load(stream, now) for stream in streams)]

    def _measure(self, now: float) -> None:
        if now - self._measured_at < MEASURE_INTERVAL_S:
            return
        self._measured_at = now
        for stream in self._streams.values():
            info = read_tcp_info(stream.connection.socket)
            if info is not None:
                before, stream.counted = stream.counted, info
                self._meter.add(info.segments - before.segments, info.repeats - before.repeats, now)
        self._plan.update(self._meter.share, now)


def _load(stream: Stream, now: float) -> Load:
    return Load(now - stream.heard_at, stream.backlog.read(partial(_waiting, stream), now))


def _waiting(stream: Stream) -> int:
    connection = stream.connection
    return connection.write_buffer_bytes + unacknowledged_bytes(connection.socket)
