"""Weights from the master, chunk by chunk, over the connection that carries the work.

Chunks are small and few are under way at once, so that heartbeat answers and
images get their turn between them on a slow link. Owns the matching of answers
to questions; any thread may hand in answers, one thread fetches.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator

from wire import messages as m
from wire.card import Card
from wire.errors import ConnectionClosed, EnvironmentFault, PeerFault

CHUNK_BYTES = 256 * 1024
WINDOW_CHUNKS = 4
CHUNK_TIMEOUT_S = 60.0

Ask = Callable[[m.Message], bool]
"""Sends a message; False if there is no connection."""


class _Lost:
    """Stands in the queue for a connection that ended."""


class Fetcher:
    """Asks for slices of a weights file and yields them in order."""

    def __init__(self, ask: Ask, chunk_timeout_s: float = CHUNK_TIMEOUT_S) -> None:
        self._ask = ask
        self._chunk_timeout_s = chunk_timeout_s
        # Twice the window: answers to a fetch that was given up may still come in.
        self._answers: queue.Queue[m.WeightsChunk | _Lost] = queue.Queue(2 * WINDOW_CHUNKS)

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
        """Yield the file from `offset` to its end.

        Raises `ConnectionClosed` when the connection ends or `give_up` is
        called, `EnvironmentFault` `weights_timeout`, and `PeerFault` for an
        answer that doesn't fit the question.
        """
        asked: deque[int] = deque()
        next_offset = offset
        while asked or next_offset < card.size_bytes:
            while next_offset < card.size_bytes and len(asked) < WINDOW_CHUNKS:
                self._request(card, next_offset)
                asked.append(next_offset)
                next_offset += CHUNK_BYTES
            yield self._next(card, asked.popleft())

    def _request(self, card: Card, offset: int) -> None:
        length = min(CHUNK_BYTES, card.size_bytes - offset)
        if not self._ask(m.FetchWeights(sha256=card.sha256, offset=offset, length=length)):
            raise ConnectionClosed("the connection ended while weights were fetched")

    def _next(self, card: Card, offset: int) -> bytes:
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
                return _checked(answer, card)


def _checked(answer: m.WeightsChunk, card: Card) -> bytes:
    length = min(CHUNK_BYTES, card.size_bytes - answer.offset)
    if answer.size_bytes != card.size_bytes or len(answer.data) != length:
        raise PeerFault(
            "weights_do_not_fit",
            f"asked for {length:,} of {card.size_bytes:,} bytes of weights, "
            f"got {len(answer.data):,} of {answer.size_bytes:,}: "
            "did the file change under the master?",
        )
    return answer.data
