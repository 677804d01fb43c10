"""Tables that others published, as data, to stand beside ours.

Each is `published/NAME.csv`: lines with `#` say where it is from and how it was
measured, then come columns. An empty cell was not published.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from importlib import resources

from experiments.errors import BadScenario


@dataclass(frozen=True, slots=True)
class Table:
    """One published table; `notes` are its source and what to know about it."""

    name: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def value(self, axis: float, column: str) -> float:
        """The number in `column` where the first column is `axis`; NaN if there is none."""
        text = self.cell(axis, column)
        try:
            return float(text) if text else math.nan
        except ValueError:
            return math.nan

    def cell(self, axis: float, column: str) -> str:
        """The text there; empty if there is none."""
        for row in self.rows:
            if math.isclose(float(row[self.columns[0]]), axis, abs_tol=1e-9):
                return row[column]
        return ""


def names() -> list[str]:
    """Every table."""
    folder = resources.files("experiments") / "published"
    return sorted(f.name.removesuffix(".csv") for f in folder.iterdir() if f.name.endswith(".csv"))


def load(name: str) -> Table:
    """One table.

    Raises:
        BadScenario: there is none of that name.
    """
    if name not in names():
        raise BadScenario(f"there is no published table {name!r}; there are {', '.join(names())}")
    text = (resources.files("experiments") / "published" / f"{name}.csv").read_text("utf-8")
    lines = text.splitlines()
    notes = tuple(line.lstrip("# ").strip() for line in lines if line.startswith("#"))
    reader = csv.DictReader(line for line in lines if not line.startswith("#"))
    rows = tuple({key: value or "" for key, value in row.items()} for row in reader)
    return Table(name, notes, tuple(reader.fieldnames or ()), rows)
