"""One line per event, as `key=value` text or as a JSON object, on stderr.

Owns the two formats. Loggers are named below `lookout.worker`; every line has
the event's name first and its ids as fields.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

LogFormat = Literal["text", "json"]
_FIELDS = "fields"


def event(log: logging.Logger, level: int, name: str, /, **fields: object) -> None:
    """Log one event with its fields; None values are left out."""
    if log.isEnabledFor(level):
        known = {key: value for key, value in fields.items() if value is not None}
        log.log(level, name, extra={_FIELDS: known})


def set_up(level: str, log_format: LogFormat) -> None:
    """Send everything below `lookout` to stderr in that format, once per process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger("lookout")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


class _Text(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info lookout.worker joined master=… name=…`."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = [f"{key}={_quoted(value)}" for key, value in _fields(record).items()]
        words = [_utc(record), record.levelname.lower(), record.name, record.getMessage(), *pairs]
        return " ".join(words) + _traceback(self, record)


class _Json(logging.Formatter):
    """One object a line with `time`, `level`, `logger`, `event` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, _FIELDS, {})
    return fields


def _utc(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and not any(c.isspace() or c in '"=' or not c.isprintable() for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""
