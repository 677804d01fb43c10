"""The bounds of a client, each with a name, and the clock and chance that it is given."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

CONCURRENCY = 16
CONCURRENCY_MAX = 256
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a client. Sizes are bytes, times are seconds.

    `image_bytes` is the server's default. At most `concurrency` images are in memory.
    """

    image_bytes: int = 32 * MIB
    answer_bytes: int = 1 * MIB

    connect_s: float = 5.0
    # Between two pieces of a body, either way.
    stall_s: float = 30.0
    # Until the first byte of an answer, beside the wait that was asked for: the server may
    # take 60 s to make an upload durable, and 30 s to fetch a URL.
    silent_s: float = 90.0
    # One whole upload, without the wait for its result.
    upload_s: float = 300.0
    # How long one request waits for a job; then the next one goes on waiting.
    wait_s: float = 30.0
    # What is kept back of a deadline for the answer's way home.
    answer_s: float = 0.5
    # Between two questions in that last time, in which the server is not to wait.
    ask_s: float = 0.125

    backoff_base_s: float = 0.25
    backoff_cap_s: float = 10.0
    # The same where nobody answered, or the master said that it is just starting: a try costs
    # it nothing then, and who waits longer adds to the outage.
    away_cap_s: float = 1.0
    # Without any answer but "away" for this long, a call ends.
    patience_s: float = 120.0
    # The same, as long as the server was never heard: a wrong address shows early.
    first_patience_s: float = 10.0
    # "The queue is full" for this long, for every image alike.
    queue_patience_s: float = 3600.0
    # Tries where trying again helps seldom.
    tries_few: int = 4
    # Images that have ended and wait for the caller, per image under way.
    window: int = 4


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance; tests bring their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)
