"""Weights from the master, slice by slice, over the connection that carries the work.

One request is under way at a time, as `wire/PROTOCOL.md` asks, so that
heartbeat answers and images get their turn between slices on a slow link. Owns
the matching of answers to questions; any thread may hand in answers, one
thread fetches.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

from wire import messages as m
from wire.card import Card
from wire.errors import ConnectionClosed, EnvironmentFault, PeerFault

CHUNK_BYTES = 2**20
"""Large enough that a round trip of 100 ms costs GoogLeNet's 26 MB under 3 s in all."""
CHUNK_TIMEOUT_S = 60.0
ANSWERS_MAX = 4
"""One is awaited; more can only answer a fetch that was given up."""

Ask = Callable[[m.Message], bool]
"""Sends a message; False if there is no connection."""


class _Lost:
    """Stands in the queue for a connection that ended."""


class Fetcher:
    """Asks for slices of a weights file and yields them in order."""

    def __init__(self, ask: Ask, chunk_timeout_s: float = CHUNK_TIMEOUT_S) -> None:
        self._ask = ask
        self._chunk_timeout_s = chunk_timeout_s
        self._answers: queue.Queue[m.WeightsChunk | _Lost] = queue.Queue(ANSWERS_MAX)

    def received(self, chunk: m.WeightsChunk) -> None:
        """Hand in an answer; one that nobody has room for is dropped."""
        if not self._answers.full():
            self._answers.put(chunk)

    def begin(self) -> None:
        """Forget what came before; `give_up` counts from here on, even before `chunks`."""
        while not self._answers.empty():
            self._answers.get_nowait()

    def give_up(self) -> None:
        """The connection ended, or another model is wanted: let the fetch under way fail."""
        while True:
            try:
                self._answers.put_nowait(_Lost())
                return
            except queue.Full:
                self.begin()

    def chunks(self, card: Card, offset: int) -> Iterator[bytes]:
        """Yield the file from `offset` to its end, in slices as long as the master likes.

        Raises `ConnectionClosed` when the connection ends or `give_up` is
        called, `EnvironmentFault` `weights_timeout`, and `PeerFault` for an
        answer that doesn't fit the question.
        """
        while offset < card.size_bytes:
            length = min(CHUNK_BYTES, card.size_bytes - offset)
            if not self._ask(m.FetchWeights(sha256=card.sha256, offset=offset, length=length)):
                raise ConnectionClosed("the connection ended while weights were fetched")
            data = self._await(card, offset, length)
            yield data
            offset += len(data)

    def _await(self, card: Card, offset: int, length: int) -> bytes:
        while True:
            try:
                answer = self._answers.get(timeout=self._chunk_timeout_s)
            except queue.Empty:
                raise EnvironmentFault(
                    "weights_timeout",
                    f"the master sent no weights for {self._chunk_timeout_s:g} s",
                ) from None
            if isinstance(answer, _Lost):
                raise ConnectionClosed("the fetch of weights was given up")
            # Anything else answers a fetch that was given up.
            if (answer.sha256, answer.offset) == (card.sha256, offset):
                return _checked(answer, card, length)


def _checked(answer: m.WeightsChunk, card: Card, length: int) -> bytes:
    if answer.size_bytes != card.size_bytes or not 1 <= len(answer.data) <= length:
        raise PeerFault(
            "weights_do_not_fit",
            f"asked for {length:,} of {card.size_bytes:,} bytes of weights, "
            f"got {len(answer.data):,} of {answer.size_bytes:,}: "
            "did the file change under the master?",
        )
    return answer.data
