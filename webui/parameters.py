"""Query parameters and headers that carry numbers, ids and preferences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import cast

from webui import views
from webui.problems import Problem
from wire import messages

JOB_ID = re.compile(r"j[0-9]{1,18}")
SUBMISSION_ID = re.compile(r"s[0-9]{1,18}")
PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?:$|[,;\s])")
KEY = re.compile(r"[\x21-\x7e]{1,255}")
# Any way to write a number that JSON knows; the whole is bounded beside it.
SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]+)?(e[-+]?[0-9]{1,3})?", re.IGNORECASE)
SECONDS_CHARS_MAX = 40
# Verdicts about the `Accept` values seen last.
ACCEPTS_REMEMBERED_MAX = 256
TIMEOUT_S_MAX = 7 * 24 * 3600.0


def seconds(name: str, text: str | None, maximum_s: float) -> float | None:
    """Read a duration in seconds; None where it isn't given.

    Raises:
        Problem: `invalid_parameter`.
    """
    if text is None:
        return None
    written = len(text) <= SECONDS_CHARS_MAX and SECONDS.fullmatch(text)
    if not written or float(text) > maximum_s:
        raise Problem(
            "invalid_parameter", f"{name}={text[:32]!r}: give seconds from 0 to {maximum_s:g}"
        )
    return float(text)


def wait_s(query: Mapping[str, list[str]], headers: Mapping[str, str], cap_s: float) -> float:
    """How long the caller wants to wait: `?wait=N` or `Prefer: wait=N`, at most `cap_s`."""
    asked = seconds("wait", last(query, "wait"), 1e9)
    if asked is None:
        preferred = PREFER_WAIT.search(headers.get("prefer", "").lower())
        asked = float(preferred.group(1)) if preferred else 0.0
    return min(asked, cap_s)


def last(query: Mapping[str, list[str]], name: str) -> str | None:
    """Return the last value of a parameter."""
    values = query.get(name)
    return values[-1] if values else None


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """Read `Idempotency-Key`.

    Raises:
        Problem: `invalid_parameter`.
    """
    key = headers.get("idempotency-key")
    if key is not None and KEY.fullmatch(key) is None:
        raise Problem(
            "invalid_parameter", "an Idempotency-Key has 1 to 255 visible ASCII characters"
        )
    return key


def job_id(text: str) -> str:
    """Return a job id, or say that there is no such job."""
    if JOB_ID.fullmatch(text) is None:
        raise Problem("not_found", f"there is no job {text[:32]!r}; ids look like j42")
    return text


def submission_id(text: str) -> str:
    """Return a submission id, or say that there is no such submission."""
    if SUBMISSION_ID.fullmatch(text) is None:
        raise Problem("not_found", f"there is no submission {text[:32]!r}; ids look like s42")
    return text


def submission_filter(text: str | None) -> str | None:
    """Read `submission=` of a list.

    Raises:
        Problem: `invalid_parameter`.
    """
    if text is not None and SUBMISSION_ID.fullmatch(text) is None:
        raise Problem("invalid_parameter", f"submission={text[:32]!r}: ids look like s42")
    return text


def states(values: Iterable[str]) -> list[messages.JobState]:
    """Read `state=`, given several times or with commas; each state once.

    Raises:
        Problem: `invalid_parameter`.
    """
    names = [name for value in values for name in value.split(",") if name]
    for name in names:
        if name not in views.STATES:
            raise Problem(
                "invalid_parameter", f"state={name[:32]!r}: one of {', '.join(views.STATES)}"
            )
    return cast("list[messages.JobState]", list(dict.fromkeys(names)))


def limit(text: str | None, default: int = 100, maximum: int = 1000) -> int:
    """Read `limit=`.

    Raises:
        Problem: `invalid_parameter`.
    """
    if text is None:
        return default
    if re.fullmatch(r"\d{1,4}", text, re.ASCII) is None or not 1 <= int(text) <= maximum:
        raise Problem("invalid_parameter", f"limit={text[:32]!r}: give 1 to {maximum}")
    return int(text)


@lru_cache(maxsize=ACCEPTS_REMEMBERED_MAX)
def accepts(header: str | None, media_type: str) -> bool:
    """Whether an `Accept` header takes a media type (q=0 refuses)."""
    if not header or not header.strip():
        return True
    kind = media_type.split("/", 1)[0]
    best = -1
    taken = False
    for entry in header.lower().split(","):
        name, _, parameters = entry.strip().partition(";")
        rank = {"*/*": 0, f"{kind}/*": 1, media_type: 2}.get(name.strip(), -1)
        if rank > best:
            best, taken = rank, re.search(r"\bq\s*=\s*0(\.0*)?\s*(;|$)", parameters) is None
    return taken
