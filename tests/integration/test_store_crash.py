"""`kill -9` of the process that writes, again and again: what it said was durable is there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from master.states import TERMINAL
from master.store import SqliteStore, open_store
from master.store.check import problems
from tests.integration.store_child import size_of
from tests.shared import REPOSITORY
from tests.unit.master.store.make import image

ROUNDS = 25
pytestmark = pytest.mark.integration


@dataclass
class Said:
    """What a process said before it died, over all its lives."""

    accepted: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    asked_to_end: set[int] = field(default_factory=set)
    asked_to_go: set[int] = field(default_factory=set)
    token: int = 0

    def hear(self, line: str) -> None:
        letter, number = line.split()
        if letter == "T":
            self.token = max(self.token, int(number))
        else:
            self.named(letter).add(int(number))

    def named(self, letter: str) -> set[int]:
        return {
            "A": self.accepted,
            "E": self.ended,
            "R": self.removed,
            "e": self.asked_to_end,
            "r": self.asked_to_go,
        }[letter]


def test_what_was_said_to_be_durable_survives_every_kill(tmp_path: Path) -> None:
    rng = random.Random(20)
    said = Said()
    epochs: list[int] = []
    for round_ in range(ROUNDS):
        _live_and_die(tmp_path / "data", said, seed=round_, lines=rng.randrange(1, 600))
        store = open_store(tmp_path / "data")
        _compare(store, said)
        epochs.append(store.totals().epoch)
        store.close()
        assert problems(tmp_path / "data") == []
    assert epochs == sorted(set(epochs))
    assert len(said.accepted) > 10 * ROUNDS
    assert said.ended
    assert said.removed


def _live_and_die(data: Path, said: Said, seed: int, lines: int) -> None:
    """Kill the process after so many lines: at no particular moment of its work."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.store_child", str(data), str(seed)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    for _ in range(lines):
        said.hear(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    for line in child.stdout:  # said between our last look and its death
        said.hear(line)
    child.stdout.close()
    assert child.wait(60) == -signal.SIGKILL


def _compare(store: SqliteStore, said: Said) -> None:
    rows = store.page(states=[], include_open=False, submission=None, before=None, limit=10**6)
    there = {row.job: row for row in rows}
    # What was asked for and not answered may have happened or not, but nothing else may have.
    assert said.accepted - set(there) <= said.asked_to_go & said.asked_to_end
    assert {job for job, row in there.items() if row.state} <= said.asked_to_end
    assert not said.removed & set(there)
    for job in said.accepted & set(there):
        assert store.image(job)[1] == image(job, size_of(job))
        assert store.submission_jobs(job) == [job]
    for job in said.ended & set(there):
        assert there[job].state in TERMINAL
    totals = store.totals()
    assert totals.next_job > max(said.accepted)
    assert totals.next_token > said.token
    assert sum(totals.counts.values()) == len(rows)
    assert totals.counts["open"] == sum(row.state is None for row in rows)
    assert totals.stored_bytes == sum(row.size_bytes for row in rows)
    assert [job.job for job in store.unfinished()] == sorted(
        row.job for row in rows if row.state is None
    )
    newest = max(said.accepted)
    key = store.key(f"key{newest}")
    assert key is not None
    assert key.submission == newest
