"""A job as the REST API shows it, checked as it is read. Unknown fields are ignored."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

JobState = Literal["queued", "leased", "backoff", "succeeded", "failed", "cancelled"]
TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})

_T = TypeVar("_T")


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """One class that the image may show; `confidence` lies in 0…1."""

    label: str
    class_id: int
    confidence: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The best class, and the five best of them in order."""

    label: str
    class_id: int
    confidence: float
    top5: list[Guess]
    timings_ms: dict[str, float] = {}


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job gave no result."""

    code: str
    message: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One image on the server. Times are RFC 3339 UTC."""

    id: str
    submission: str
    name: str
    state: JobState
    submitted_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    attempts: int = 0
    worker: str | None = None
    model: str | None = None
    result: Result | None = None
    error: JobError | None = None

    @property
    def ended(self) -> bool:
        """True once the state can't change any more."""
        return self.state in TERMINAL_STATES


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a submission."""

    submission: str
    jobs: list[Job]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an RFC 9457 problem that the client reads."""

    code: str = ""
    detail: str = ""


def read(body: bytes, kind: type[_T]) -> _T | None:
    """Decode an answer; None where it is not what the API describes."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def shown(value: Any) -> Any:
    """Plain dicts and lists of a struct, for JSON."""
    return msgspec.to_builtins(value)
