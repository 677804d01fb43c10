"""All results as CSV or JSON, streamed page by page, newest first."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import msgspec

from webui import parameters, views
from webui.config import Limits
from webui.core import Core
from webui.exchange import Exchange
from wire import messages

PAGE_JOBS = 500
COLUMNS = (
    "id", "submission", "name", "state", "label", "class_id", "confidence",
    "submitted_at", "started_at", "finished_at", "attempts", "worker", "model",
    "error_code", "error_message",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Exports:
    """The handlers of /results.csv and /results.json."""

    def __init__(self, core: Core, limits: Limits) -> None:
        self._core = core
        self._limits = limits

    async def csv(self, exchange: Exchange) -> None:
        """Stream `COLUMNS` of every job."""
        pages = self._pages(exchange)
        first = await anext(pages)  # a refusal must come before the status line
        await self._start(exchange, "text/csv; charset=utf-8", "lookout-results.csv")
        await exchange.write(_rows([list(COLUMNS)]))
        await exchange.write(_rows([_row(job) for job in first]))
        async for page in pages:
            await exchange.write(_rows([_row(job) for job in page]))
        await exchange.write(b"", more=False)

    async def json(self, exchange: Exchange) -> None:
        """Stream a JSON array of every job."""
        pages = self._pages(exchange)
        first = await anext(pages)
        await self._start(exchange, "application/json", "lookout-results.json")
        await exchange.write(b"[" + b",\n".join(map(msgspec.json.encode, first)))
        lead = b",\n" if first else b""
        async for page in pages:
            await exchange.write(lead + b",\n".join(map(msgspec.json.encode, page)))
        await exchange.write(b"]\n", more=False)

    async def _start(self, exchange: Exchange, media_type: str, filename: str) -> None:
        headers = [
            ("Content-Type", media_type),
            ("Content-Disposition", f'attachment; filename="{filename}"'),
            ("Cache-Control", "no-store"),
        ]
        await exchange.start(200, headers)

    async def _pages(self, exchange: Exchange) -> AsyncIterator[list[views.Job]]:
        """Yield at least one page, perhaps empty; later ones are never empty."""
        states = parameters.states(exchange.query.get("state", []))
        submission = parameters.submission_filter(parameters.last(exchange.query, "submission"))
        cursor: str | None = None
        first = True
        while first or cursor is not None:
            asked = messages.ListJobs(
                request=0, states=states, submission=submission, limit=PAGE_JOBS, cursor=cursor
            )
            reply = await self._core.ask(asked, messages.Jobs, self._limits.core_call_s)
            if first or reply.jobs:
                yield [views.job(job) for job in reply.jobs]
            cursor, first = reply.cursor, False


def _row(job: views.Job) -> list[object]:
    result, error = job.result, job.error
    values: list[object] = [job.id, job.submission, job.name, job.state]
    values += [result.label, result.class_id, result.confidence] if result else ["", "", ""]
    values += [job.submitted_at, job.started_at, job.finished_at, job.attempts]
    values += [job.worker, job.model]
    values += [error.code, error.message] if error else ["", ""]
    return [_safe(value) for value in values]


def _safe(value: object) -> object:
    """Keep a spreadsheet from taking a file's name for a formula."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _rows(rows: list[list[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
