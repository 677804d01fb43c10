"""Outcomes as lines of text: a table for people, JSON lines, CSV. Pure.

File names, labels and messages come from elsewhere: a table shows no control
characters, and a CSV cell is no formula.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable
from typing import Final

import msgspec
from rich.cells import cell_len

from client.flags import Format
from client.job import Guess
from client.run import Outcome

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_LABEL_CELLS: Final = 28
_COLUMNS: Final = ("image", "state", "label", "class_id", "confidence")
_LAST_COLUMNS: Final = ("job", "worker", "model", "error_code", "error_message")

Row = Callable[[Outcome], str]


def header(shape: Format, top: int) -> str:
    """What stands above the rows; empty for JSON."""
    if shape == "csv":
        return _csv_line([*_COLUMNS, *_more_columns(top), *_LAST_COLUMNS])
    if shape == "table":
        return f"{'sure':>8}  {_padded('label')}  image\n"
    return ""


def row(shape: Format, top: int) -> Row:
    """A function from an outcome to its line or lines, newline included."""
    rows: dict[Format, Callable[[Outcome, int], str]] = {
        "table": _table,
        "json": _json,
        "csv": _csv,
    }
    return lambda outcome: rows[shape](outcome, top)


def state(outcome: Outcome) -> str:
    """`succeeded`, or why not: `failed`, `cancelled`, `unknown` (not followed to its end)."""
    if outcome.ok:
        return "succeeded"
    job = outcome.job
    if job is not None:
        return job.state if job.ended else "unknown"
    return "failed"


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor or colours."""
    return "".join("\ufffd" if unicodedata.category(c)[0] == "C" else c for c in text)


def _guesses(outcome: Outcome, top: int) -> list[Guess]:
    return outcome.result.top5[:top] if outcome.ok else []


def _table(outcome: Outcome, top: int) -> str:
    image = printable(outcome.image)
    if outcome.error is not None:
        what = f"{'failed':>8}  {_padded(printable(outcome.error.code))}  {image}\n"
        return f"{what}{'':10}{printable(outcome.error.message)}\n"
    names = [image] + [""] * top
    lines = (
        f"{guess.confidence * 100:6.1f} %  {_padded(printable(guess.label))}  {name}".rstrip()
        for guess, name in zip(_guesses(outcome, top), names, strict=False)
    )
    return "\n".join(lines) + "\n"


def _json(outcome: Outcome, top: int) -> str:
    job, error = outcome.job, outcome.error
    shown: dict[str, object] = {
        "image": outcome.image,
        "state": state(outcome),
        "top": _guesses(outcome, top),
        "job": job and job.id,
        "worker": job and job.worker,
        "model": job and job.model,
        "timings_ms": outcome.result.timings_ms if outcome.ok else {},
        "error": None if error is None else {"code": error.code, "message": error.message},
    }
    return msgspec.json.encode(shown).decode() + "\n"


def _csv(outcome: Outcome, top: int) -> str:
    guesses = _guesses(outcome, top)
    values: list[object] = [outcome.image, state(outcome)]
    for rank in range(top):
        guess = guesses[rank] if rank < len(guesses) else None
        values += [guess.label, guess.class_id, guess.confidence] if guess else ["", "", ""]
    job, error = outcome.job, outcome.error
    values += [job.id, job.worker or "", job.model or ""] if job else ["", "", ""]
    values += [error.code, error.message] if error else ["", ""]
    return _csv_line(values)


def _more_columns(top: int) -> list[str]:
    names = ("label", "class_id", "confidence")
    return [f"{name}_{rank}" for rank in range(2, top + 1) for name in names]


def _csv_line(values: list[object] | list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([_safe(value) for value in values])
    return text.getvalue()


def _safe(value: object) -> object:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _padded(text: str) -> str:
    return text + " " * max(0, _LABEL_CELLS - cell_len(text))
