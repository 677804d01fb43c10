"""Adds and ends jobs for ever, and says on stdout what is durable. Made to be killed.

`A 17` means that job 17 is accepted, `E 17` that it has its outcome, `R 17` that it is
removed, `T 300` that tokens up to 300 are reserved. Each line is one write(2), made by
the writer's thread right after the commit. `e 17` and `r 17` come before: that is about
to be asked for.
"""

from __future__ import annotations

import os
import random
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from master.states import JobState
from master.store import SqliteStore, StoreConfig, open_store
from master.store.write import Write
from tests.unit.master.store.make import attempt, end, part

IN_FLIGHT_MAX = 64
SEGMENT_BYTES = 300_000


def say(letter: str, number: int, future: Write[Any]) -> None:
    if future.exception() is None and future.result() is not False:
        os.write(1, f"{letter} {number}\n".encode())


def announce(letter: str, numbers: Iterable[int]) -> None:
    os.write(1, "".join(f"{letter} {number}\n" for number in numbers).encode())


def size_of(job: int) -> int:
    """Mostly small, some large: groups span segments."""
    return 40_000 if job % 10 == 0 else 500 + job % 700


def work(store: SqliteStore, rng: random.Random) -> None:
    job, token = store.totals().next_job, store.totals().next_token
    flying: deque[Write[Any]] = deque()
    while True:
        flying.append(store.add(part(job, [job], size_bytes=size_of(job), key=f"key{job}")))
        flying[-1].add_done_callback(lambda done, job=job: say("A", job, done))
        if job > 10 and rng.random() < 0.7:
            ended = job - rng.randrange(10) - 1
            state = rng.choice([JobState.SUCCEEDED, JobState.FAILED])
            announce("e", [ended])
            store.record(attempt(ended, token))
            flying.append(store.finish(end(ended, state, token=token)))
            flying[-1].add_done_callback(lambda done, job=ended: say("E", job, done))
        if rng.random() < 0.02:
            unwanted = range(max(1, job - 200), max(1, job - 150))
            announce("r", unwanted)
            flying.append(store.remove(unwanted))
            flying[-1].add_done_callback(
                lambda done: [say("R", gone, done) for gone in done.result()]
            )
        if rng.random() < 0.05:
            token += 100
            flying.append(store.reserve_tokens(token))
            flying[-1].add_done_callback(lambda done, token=token: say("T", token, done))
        job += 1
        while len(flying) > IN_FLIGHT_MAX:
            flying.popleft().result(60)


if __name__ == "__main__":
    config = StoreConfig(segment_bytes=SEGMENT_BYTES, min_free_bytes=0, checkpoint_rows=500)
    work(open_store(Path(sys.argv[1]), config), random.Random(int(sys.argv[2])))
