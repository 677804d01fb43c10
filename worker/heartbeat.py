"""The thread that beats: nothing else that a worker does can hold it up.

It has its own timer and shares with the rest only the numbers of `Vitals` and
the connection's send lock, which others hold for as long as the kernel takes a
few kilobytes. Inference and decoding let go of the interpreter lock; a weights
download flows the other way. Also notices when the whole process stood still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from wire import messages as m
from wire.errors import LookoutError
from worker.vitals import Vitals

PAUSE_INTERVALS = 3.0
PAUSE_MIN_S = 2.0
"""So long between two beats was no matter of load: the process was stopped.

Importing torch holds the interpreter lock for up to half a second.
"""


class Heartbeat:
    """Sends `Heartbeat` every `interval_s` through `send` until it raises or `stop` is called."""

    def __init__(
        self,
        send: Callable[[m.Message], None],
        vitals: Vitals,
        interval_s: float,
        on_pause: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._vitals = vitals
        self._interval_s = interval_s
        self._on_pause = on_pause
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Beat at once, then every interval."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; returns without waiting."""
        self._stopped.set()

    def beat(self, seq: int) -> None:
        """Send one heartbeat. Raises what `send` raises."""
        progress, held, executing = self._vitals.read()
        self._send(m.Heartbeat(seq=seq, progress=progress, held=held, executing=executing))

    def _run(self) -> None:
        due_s = last_s = self._clock()
        seq = 0
        while not self._stopped.wait(max(0.0, due_s - self._clock())):
            now = self._clock()
            if now - last_s > max(PAUSE_MIN_S, PAUSE_INTERVALS * self._interval_s):
                self._on_pause(now - last_s)
            last_s = now
            try:
                self.beat(seq)
            except LookoutError:
                return  # the thread that receives sees the end, too, and reports it
            seq += 1
            due_s = max(due_s + self._interval_s, self._clock())
