"""What benchmarks print: a row for each case, a column for each figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Row = TypeVar("Row")


def table(
    columns: Sequence[tuple[str, Callable[[Row], float]]], rows: Mapping[str, Sequence[Row]]
) -> str:
    """Markdown: of each case's rounds the median (smallest to largest)."""
    lines = ["| case | " + " | ".join(name for name, _ in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name, measured in rows.items():
        cells = [_cell([read(row) for row in measured]) for _, read in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    form = ",.0f" if max(values) >= 100 else ".2f"
    figures = statistics.median(values), min(values), max(values)
    middle, low, high = (format(value, form) for value in figures)
    return f"{middle} ({low} to {high})"
