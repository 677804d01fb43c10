"""The streams of one membership: from the first connection's `Welcome` until none is left.

Owns the open streams, the threads that beat and receive over all of them, and
opening more where the link asks for it. Promises that a stream which ends takes nothing
along: what it may not have delivered goes over another one, and only the end
of the last, or silence over all of them, ends the membership. Leaves the
decisions to `worker.streaming` and `wire.streams`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

import msgspec

from wire import blocking
from wire import messages as m
from wire.errors import ConnectionClosed, EnvironmentFault, PeerFault, Rejected
from wire.streams import STREAMS_AUTO_MAX, UNCONFIRMED_MAX, LossMeter, StreamPlan, choose
from worker.heartbeat import Heartbeat
from worker.logs import event
from worker.receiver import Receiver
from worker.stream import Stream
from worker.streaming import Dial, Keeper, Shut, StreamView
from worker.vitals import Vitals

log = logging.getLogger("lookout.worker.link")
OVER_CODES = frozenset({"session_unknown", "bad_ticket"})
"""The master's ways to say that it has given this membership up."""

DialStream = Callable[[m.Hello, bytes], blocking.BlockingConnection]


class Bundle:
    """One worker's streams. `take` gets the master's messages, all on one thread."""

    def __init__(
        self,
        first: blocking.BlockingConnection,
        hello: m.Hello,
        streams: int | None,
        dial: DialStream,
        take: Callable[[m.Message], None],
    ) -> None:
        self._welcome = first.welcome
        self._hello = hello
        self._fixed = streams
        self._dial = dial
        self._take = take
        self._max = min(hello.streams_max, self._welcome.streams_max)
        self._interval_s = self._welcome.heartbeat_interval_s
        self._news = threading.Condition()
        self._streams = {0: Stream(0, first)}
        self._receiver = Receiver(self, self._interval_s)
        self._reason: str | None = None
        self._last_reason = ""
        self._waiting: list[m.Message] = []
        self._number = 0
        self._advised = 1
        self._keeper = Keeper(random.SystemRandom())
        self._meter = LossMeter(time.monotonic())
        self._plan = StreamPlan()

    def run(self, vitals: Vitals, on_pause: Callable[[float], None]) -> str:
        """Beat, receive and keep the streams until the membership is over; says why it is."""
        heartbeat = Heartbeat(self._beat, vitals, self._interval_s, on_pause)
        heartbeat.start()
        self._receiver.add(self._streams[0])
        self._receiver.start()
        try:
            while self._reason is None:
                self._keep()
                with self._news:
                    self._news.wait_for(lambda: self._reason is not None, self._interval_s)
        finally:
            heartbeat.stop()
            self.close(self._reason or "a bug of this worker ended it")
        self._receiver.finish()
        return self._reason

    def send(self, *messages: m.Message) -> bool:
        """Send in one write over the best stream; False if the membership is over."""
        tried: set[int] = set()
        while streams := [stream for stream in self._all() if stream.number not in tried]:
            at = _best(streams) if len(streams) > 1 else 0
            if streams[at].send(*messages):
                return True
            tried.add(streams[at].number)  # it has ended, and we are about to be told
        with self._news:
            if self._reason is None and len(self._waiting) < UNCONFIRMED_MAX:
                self._waiting += messages
            return self._reason is None

    def close(self, reason: str) -> None:
        """End the membership and all its streams."""
        with self._news:
            self._end(reason)
        for stream in self._all():
            stream.close(reason)

    # --- what streams tell ------------------------------------------------------------------

    def received(self, stream: Stream, message: m.Message) -> None:
        """A message came over one stream."""
        if isinstance(message, m.HeartbeatAck):
            self._advised = max(1, message.streams)
        elif isinstance(message, m.Goodbye):
            self.close(f"the master said goodbye: {message.reason}")
        else:
            self._take(message)

    def ended(self, stream: Stream, reason: str) -> None:
        """A stream is over: the others take what it did not deliver."""
        left = stream.leave()
        with self._news:
            self._streams.pop(stream.number, None)
            self._last_reason = reason
            self._end_if_alone()
            over = self._reason is not None
        if not over:
            event(log, logging.INFO, "stream_ended", stream=stream.number, reason=reason)
            for message in left:
                self.send(message)
        stream.connection.close()

    # --- keeping ----------------------------------------------------------------------------

    def _all(self) -> list[Stream]:
        with self._news:
            return sorted(self._streams.values(), key=lambda stream: stream.number)

    def _end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            self._news.notify_all()

    def _end_if_alone(self) -> None:
        # The master ends a stream as soon as its replacement stands, which it knows before us.
        if not self._streams and not self._keeper.replacing:
            self._end(self._last_reason)

    def _beat(self, heartbeat: m.Message) -> None:
        assert isinstance(heartbeat, m.Heartbeat)
        if self._reason is not None:
            raise ConnectionClosed(self._reason)
        for stream in self._all():
            stream.beat(heartbeat)

    def _keep(self) -> None:
        """Look at all streams: silence over all of them ends it, some ask for replacement."""
        streams = self._all()
        lease_ttl_s = self._welcome.lease_ttl_s
        if streams and min(stream.silence_s for stream in streams) >= lease_ttl_s:
            self.close(f"the master sent nothing for {lease_ttl_s:g} s")
        if self._max <= 1 or not self._welcome.ticket or self._reason is not None:
            return
        views = [StreamView(stream.number, stream.silence_s) for stream in streams]
        for step in self._keeper.decide(views, self._wanted(streams), time.monotonic()):
            match step:
                case Shut(number):
                    self._shut(number)
                case Dial():
                    self._start_dial(step)

    def _wanted(self, streams: list[Stream]) -> int:
        if self._fixed is not None:
            return min(self._fixed, self._max)
        now = time.monotonic()
        for segments, repeats in [stream.counted() for stream in streams]:
            self._meter.add(segments, repeats, now)
        own = self._plan.update(self._meter.share, now)
        return min(max(own, self._advised), self._max, STREAMS_AUTO_MAX)

    def _shut(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.close("the link does without it now")

    def _start_dial(self, dial: Dial) -> None:
        self._number += 1
        replaces = [] if dial.replaces is None else [dial.replaces]
        hello = msgspec.structs.replace(self._hello, stream=self._number, replaces=replaces)
        threading.Thread(
            target=self._open, args=(dial, hello), name=f"dial-{self._number}", daemon=True
        ).start()

    def _open(self, dial: Dial, hello: m.Hello) -> None:
        """On a thread of its own: one more stream, or none."""
        stream: Stream | None = None
        try:
            connection = self._dial(hello, self._welcome.ticket)
            stream = Stream(hello.stream, connection)
        except Rejected as refusal:
            if refusal.code in OVER_CODES:
                self.close(f"the master has given this worker up: {refusal.reason}")
        except (EnvironmentFault, PeerFault) as fault:
            event(log, logging.INFO, "stream_failed", stream=hello.stream, reason=fault.reason)
        with self._news:
            self._keeper.dialled(dial, stream is not None, time.monotonic())
            if stream is not None and self._reason is None:
                self._streams[stream.number] = stream
            elif stream is not None:
                stream.connection.close()
                return
            self._end_if_alone()
            waiting, self._waiting = self._waiting, []
        for message in waiting:
            self.send(message)
        if stream is not None:
            event(log, logging.INFO, "stream_opened", stream=stream.number, replaces=dial.replaces)
            self._receiver.add(stream)
            old = None if dial.replaces is None else self._streams.get(dial.replaces)
            if old is not None:
                old.close("another stream takes over")


def _best(streams: list[Stream]) -> int:
    now = time.monotonic()
    return choose(stream.load(now) for stream in streams)
