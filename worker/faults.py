"""Faults made on purpose, for tests and benchmarks; inert in every ordinary run.

`LOOKOUT_FAULTS` is read once while the configuration is built, and only
together with the hidden flag `--enable-fault-hooks`; without the flag it is
refused, so that nobody is surprised. Its value is `key=value` pairs separated
by semicolons:

- `crash-on=WHAT`  the process gets SIGKILL when it is about to decode that image
- `hang-on=WHAT`   the thread that should decode that image blocks for ever
- `delay-ms=N`     every forward pass waits so long first

WHAT is the first hex digits of the upload's SHA-256 (eight or more, or any
number after `sha256:`), or else text that the upload contains.

`--engine null` (also hidden) answers at once, without weights, decoding or
torch: it measures everything but the worker. Its class follows from the bytes
(their CRC-32, modulo the number of classes), so that an answer to the wrong
image shows; with `delay-ms` it takes that long for each image, one after the other.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import signal
import threading
import zlib
from dataclasses import dataclass

from wire import messages as m
from wire.card import Card
from wire.errors import EnvironmentFault
from worker.events import Finished, Lease, ModelLoaded, Post
from worker.vitals import Vitals

VARIABLE = "LOOKOUT_FAULTS"
NULL_ENGINE = "null"
_HASH_PREFIX = "sha256:"
_HASH_LIKE = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class Faults:
    """Which images kill or hang the process, and how much slower it is."""

    crash_on: str = ""
    hang_on: str = ""
    delay_ms: float = 0.0

    def before_decode(self, data: bytes) -> None:
        """Called on a decoding thread with every image."""
        if self.crash_on and _is_meant(self.crash_on, data):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.hang_on and _is_meant(self.hang_on, data):
            threading.Event().wait()

    def before_infer(self) -> None:
        """Called on the inferring thread before every forward pass."""
        if self.delay_ms:
            threading.Event().wait(self.delay_ms / 1000.0)


def parse_faults(text: str) -> Faults:
    """Read the variable's value. Raises `EnvironmentFault` for what it doesn't know."""
    wanted = dict(pair.partition("=")[::2] for pair in text.split(";") if pair)
    unknown = set(wanted) - {"crash-on", "hang-on", "delay-ms"}
    if unknown:
        raise EnvironmentFault("bad_faults", f"{VARIABLE} has unknown keys: {sorted(unknown)}")
    try:
        delay_ms = float(wanted.get("delay-ms", "0"))
    except ValueError as error:
        raise EnvironmentFault("bad_faults", f"{VARIABLE}: delay-ms: {error}") from error
    return Faults(wanted.get("crash-on", ""), wanted.get("hang-on", ""), delay_ms)


def _is_meant(what: str, data: bytes) -> bool:
    digits = what.removeprefix(_HASH_PREFIX).lower()
    if what.startswith(_HASH_PREFIX) or _HASH_LIKE.fullmatch(digits):
        return hashlib.sha256(data).hexdigest().startswith(digits)
    return what.encode() in data


class NullPipeline:
    """Stands in for loader and pipeline: every lease succeeds with a class of its bytes."""

    def __init__(self, post: Post, vitals: Vitals, delay_ms: float = 0.0) -> None:
        self._post = post
        self._vitals = vitals
        self._model = ""
        self._classes: tuple[str, ...] = ()
        self._delay_s = delay_ms / 1000.0
        # Bounded by the leases that a worker may hold (`--slots`).
        self._begun: queue.SimpleQueue[Lease] = queue.SimpleQueue()

    def start(self) -> None:
        """Without a delay nothing runs: the agent's thread answers."""
        if self._delay_s:
            threading.Thread(target=self._run, name="null-engine", daemon=True).start()

    def load(self, card: Card) -> None:
        """Be ready at once."""
        self._post(ModelLoaded(card, NULL_ENGINE, 0.0))

    def serve(self, card: Card) -> None:
        """Answer with this card's labels from now on."""
        self._model = card.id
        self._classes = tuple(card.classes)

    def submit(self, lease: Lease) -> None:
        """Finish the lease, at once or in its turn."""
        if self._delay_s:
            self._begun.put(lease)
        else:
            self._finish(lease)

    def close(self) -> bool:
        """A daemon thread that only waits needs no end."""
        return True

    def _run(self) -> None:
        while True:
            lease = self._begun.get()
            threading.Event().wait(self._delay_s)
            self._finish(lease)

    def _finish(self, lease: Lease) -> None:
        self._vitals.advance()
        number = zlib.crc32(lease.assign.image) % len(self._classes)
        guess = m.Guess(label=self._classes[number], class_id=number, confidence=1.0)
        job, token = lease.assign.job, lease.assign.token
        self._post(Finished(m.Result(job=job, token=token, model=self._model, top5=[guess])))
