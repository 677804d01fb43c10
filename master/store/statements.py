"""The SQL of `sql/statements.sql`, by name, and statements over many rows at once.

`sqlite3` releases the GIL around every step of a statement and must win it back
after; beside a busy event loop each of these costs up to a switch interval
(5 ms). `executemany` steps once per row: measured beside a spinning thread, 100
rows took 250 ms, against 0.25 ms for one statement with 100 rows of VALUES. So
a group's rows go over in as few statements as possible. The number of rows is
padded to a power of two, so that few distinct statements exist and all stay in
the connection's statement cache.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

ROWS_MAX: Final = 512
# Statements kept compiled per connection: about 15 kinds by 10 sizes.
CACHED_STATEMENTS: Final = 256
COLUMNS: Final = (
    "job, submission, name, media_type, size_bytes, submitted_at, deadline_at, state, attempts, "
    "started_at, finished_at, worker, model, top5, timings, error_code, error_message"
)

Row = tuple[Any, ...]


def load() -> dict[str, str]:
    """Parse `statements.sql` into name → text."""
    text = files("master.store.sql").joinpath("statements.sql").read_text(encoding="utf-8")
    blocks = text.split("-- name: ")[1:]
    pairs = (block.split("\n", 1) for block in blocks)
    return {name.strip(): body.strip().replace("{columns}", COLUMNS) for name, body in pairs}


SQL: Final = load()


@cache
def _text(name: str, rows: int, width: int) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return SQL[name].replace("{rows}", ",".join([row] * rows))


def run(db: sqlite3.Connection, name: str, *parameters: object) -> sqlite3.Cursor:
    """Execute one statement without rows of parameters."""
    return db.execute(SQL[name], parameters)


def run_rows(db: sqlite3.Connection, name: str, rows: Sequence[Row], *after: object) -> int:
    """Execute a statement over all rows; returns how many rows of the table it changed.

    `after` are the parameters that follow the rows in the statement.
    """
    changed = 0
    for text, parameters in _chunks(name, rows):
        changed += db.execute(text, [*parameters, *after]).rowcount
    return changed


def select_rows(db: sqlite3.Connection, name: str, keys: Iterable[int]) -> list[Row]:
    """Execute a query over all keys and fetch everything."""
    found: list[Row] = []
    for text, parameters in _chunks(name, [(key,) for key in keys]):
        found += db.execute(text, parameters).fetchall()
    return found


def _chunks(name: str, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
    for start in range(0, len(rows), ROWS_MAX):
        chunk = rows[start : start + ROWS_MAX]
        width = len(chunk[0])
        padded = 1 << (len(chunk) - 1).bit_length()
        parameters = [value for row in chunk for value in row]
        parameters.extend([None] * (width * (padded - len(chunk))))
        yield _text(name, padded, width), parameters
