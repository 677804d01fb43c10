"""Fencing tokens, from blocks that the store has durably reserved.

Promises that tokens rise and that none is given outside a reserved block, so
that none is ever given twice, whatever dies in between. The next block is
asked for when half of this one is used.
"""

from __future__ import annotations

import math

from master.scheduler.effects import ReserveTokens


class TokenBlock:
    """The tokens that may be given."""

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._next = 0
        self._last = -1
        self._size = 0
        self._asked_until = -math.inf
        self.first_of_life: int | None = None

    @property
    def left(self) -> int:
        """How many may still be given."""
        return self._last - self._next + 1

    @property
    def next(self) -> int:
        """The token that `take` would give."""
        return self._next

    def reserved(self, first: int, last: int) -> None:
        """A block is durable; the first one also says where this life begins and the size."""
        if self.first_of_life is None:
            self.first_of_life = self._next = first
            self._size = max(1, last - first + 1)
        self._last = max(self._last, last)
        self._asked_until = -math.inf

    def take(self) -> int:
        """The next token; the caller has looked at `left`."""
        self._next += 1
        return self._next - 1

    def wanted(self, now: float) -> ReserveTokens | None:
        """Ask for a block if it is time to; again if nobody answered."""
        if not self._short() or now < self._asked_until:
            return None
        self._asked_until = now + self._retry_s
        return ReserveTokens(self._last + self._size)

    def next_deadline(self) -> float | None:
        """When to ask again."""
        return self._asked_until if self._short() and math.isfinite(self._asked_until) else None

    def _short(self) -> bool:
        return self.first_of_life is not None and self.left <= self._size // 2
