"""What connections may cost, and the clock of a frame that is slow to arrive.

Both pure: the shells bring the time.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.framing import FRAME_BYTES_MAX
from wire.session import WORKER_FRAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one listening socket and its connections.

    A frame must be complete within `frame_timeout_s` plus its size over
    `frame_rate_floor_bytes_s`. `write_bytes_max` is what may wait for a slow
    reader before it is cut off; `drain` waits above `write_high_bytes`.
    `linger_s` is how long an ended connection may take to deliver its last
    frame. `unauthenticated_max` connections may be in their handshake at once.
    """

    handshake_timeout_s: float = 10.0
    frame_timeout_s: float = 60.0
    frame_rate_floor_bytes_s: float = 16 * 2**10
    frame_bytes_max: int = FRAME_BYTES_MAX
    worker_frame_bytes_max: int = WORKER_FRAME_BYTES_MAX
    write_bytes_max: int = 4 * FRAME_BYTES_MAX
    write_high_bytes: int = 2**20
    unauthenticated_max: int = 256
    linger_s: float = 2.0

    def frame_allowance_s(self, frame_bytes: int) -> float:
        """How long a frame of that length may take from its first byte to its last."""
        return self.frame_timeout_s + frame_bytes / self.frame_rate_floor_bytes_s


class FrameClock:
    """Since when the present frame has been incomplete.

    Bytes that keep coming don't reset it, only a frame that ends does: a peer
    that drips is told from one that sends many frames.
    """

    def __init__(self) -> None:
        self.since_s: float | None = None
        self._frames_received = 0

    def observe(self, pending_bytes: int, frames_received: int, now: float) -> bool:
        """Look after each read; true if a frame is incomplete."""
        if not pending_bytes:
            self.since_s = None
        elif self.since_s is None or frames_received != self._frames_received:
            self.since_s = now
        self._frames_received = frames_received
        return self.since_s is not None
