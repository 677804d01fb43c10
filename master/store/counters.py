"""Figures kept in memory beside the table: what `totals` answers, and what is on its way."""

from __future__ import annotations

import threading
from collections import Counter

from master.store.base import Totals
from master.store.table import Change

STATES = ("open", "succeeded", "failed", "cancelled")


class Counters:
    """Changed by the writer after each commit, read by anybody."""

    def __init__(self, totals: Totals, keys: int) -> None:
        self._lock = threading.Lock()
        self._totals = totals
        self._counts = Counter(totals.counts)
        self.keys = keys
        self.pending_ops = 0
        self.pending_bytes = 0

    def apply(self, change: Change) -> None:
        """A transaction is durable."""
        with self._lock:
            before = self._totals
            self._counts.update(change.counts)
            self.keys = change.keys
            self._totals = Totals(
                next_job=max(before.next_job, change.last_job + 1),
                next_submission=max(before.next_submission, change.last_submission + 1),
                next_token=max(before.next_token, change.last_token + 1),
                epoch=before.epoch,
                counts={},
                stored_bytes=before.stored_bytes + change.stored_bytes,
            )

    def totals(self) -> Totals:
        """A snapshot."""
        with self._lock:
            now = self._totals
            return Totals(
                next_job=now.next_job,
                next_submission=now.next_submission,
                next_token=now.next_token,
                epoch=now.epoch,
                counts={state: self._counts[state] for state in STATES},
                stored_bytes=now.stored_bytes,
            )

    def asked(self, ops: int, size_bytes: int) -> None:
        """Writes were queued."""
        with self._lock:
            self.pending_ops += ops
            self.pending_bytes += size_bytes

    def answered(self, ops: int, size_bytes: int) -> None:
        """Writes are durable or have failed."""
        self.asked(-ops, -size_bytes)
