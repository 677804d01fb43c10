"""Structured logs: one line per event, `key=value` text or one JSON object."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


def fields(event: str, **values: Any) -> dict[str, Any]:
    """Arguments for `logger.log(level, **fields("joined", worker=…))`."""
    return {"msg": event, "extra": {"fields": values}}


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text


class TextFormatter(logging.Formatter):
    """`2026-01-01T12:00:00.000Z info lookout.core joined worker=w1 …`."""

    def format(self, record: logging.LogRecord) -> str:
        values = getattr(record, "fields", {})
        tail = "".join(f" {key}={_text(value)}" for key, value in values.items())
        head = f"{_stamp(record)} {record.levelname.lower()} {record.name} {record.getMessage()}"
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return head + tail + trace


class JsonFormatter(logging.Formatter):
    """One JSON object a line; the event's fields are its members."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _stamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def set_up(log_format: str, log_level: str) -> None:
    """Send all `lookout.*` records to stderr in the chosen form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("lookout").setLevel(log_level.upper())
