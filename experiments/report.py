"""One HTML file that stands alone: the picture first, then the numbers, then what made them."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from experiments.plots import Picture
from experiments.statistics import Interval

STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;max-width:62rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem} h2{font-size:1.15rem;margin-top:2.2rem}
p.question{color:#555;margin-top:0} img{max-width:100%;height:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;display:block;overflow-x:auto}
th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right}
td{white-space:nowrap} th{vertical-align:bottom}
th:first-child,td:first-child{text-align:left} small{color:#666}
.good{border-left:4px solid #2e7d32;padding-left:.8rem}
.bad{border-left:4px solid #b00020;padding-left:.8rem;font-weight:600}
pre{background:#f6f6f6;padding:.8rem;overflow-x:auto;font-size:.8rem}
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its heading, columns, and rows of text."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that the report shows, in this order."""

    title: str
    question: str
    pictures: Sequence[tuple[Picture, str]]
    violations: Sequence[str]
    jobs: int
    tables: Sequence[Table]
    notes: Sequence[str]
    manifest: dict[str, Any]


def render(content: Content) -> str:
    """The page. It loads nothing from anywhere."""
    first, *others = content.pictures
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>{html.escape(content.title)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(content.title)}</h1>",
        f"<p class=question>{html.escape(content.question)}</p>",
        _image(*first),
        _history(content),
        *(_table(table) for table in content.tables),
        *(_image(*picture) for picture in others),
        *(f"<p>{html.escape(note)}</p>" for note in content.notes),
        "<h2>What produced this</h2>",
        f"<pre>{html.escape(json.dumps(content.manifest, indent=1, sort_keys=True))}</pre>",
    ]
    return "\n".join(parts) + "\n"


def shown(at: Interval) -> str:
    """A mean with its interval, to four digits."""
    if not math.isfinite(at.mean):
        return "–"
    if not math.isfinite(at.low):
        return number(at.mean)
    return f"{number(at.mean)} [{number(at.low)}, {number(at.high)}]"


def number(value: float) -> str:
    """Four significant digits, with thousands apart."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _image(picture: Picture, caption: str) -> str:
    data = base64.b64encode(picture.png).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption><small>{text}</small></figcaption></figure>"
    )


def _history(content: Content) -> str:
    if not content.violations:
        return (
            f"<p class=good>The history checker looked at {content.jobs} jobs and found nothing: "
            "every accepted image has exactly one outcome, the right one; tokens only rose.</p>"
        )
    items = "".join(f"<li>{html.escape(text)}</li>" for text in content.violations[:50])
    return f"<p class=bad>This run FAILED: promises were broken.</p><ul>{items}</ul>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    note = f"<p><small>{html.escape(table.note)}</small></p>" if table.note else ""
    return f"<h2>{html.escape(table.heading)}</h2><table><tr>{head}</tr>{body}</table>{note}"
