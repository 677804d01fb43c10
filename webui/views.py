"""What the API shows: the core's messages as the JSON of `docs/api.md`."""

from __future__ import annotations

from typing import Any

import msgspec

from wire import messages

TERMINAL_STATES = ("succeeded", "failed", "cancelled")
STATES = ("queued", "leased", "backoff", *TERMINAL_STATES)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a job: the best class, and the five best."""

    label: str
    class_id: int
    confidence: float
    top5: list[messages.Guess]
    timings_ms: dict[str, float]


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job gave no answer."""

    code: str
    message: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as every answer of the API shows it."""

    id: str
    submission: str
    name: str
    state: messages.JobState
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    attempts: int
    worker: str | None
    model: str | None
    size_bytes: int
    media_type: str
    result: Result | None
    error: Error | None


def job(view: messages.JobView) -> Job:
    """Show one job."""
    error = view.error and Error(code=view.error.code, message=view.error.message)
    return Job(
        id=view.id,
        submission=view.submission,
        name=view.name,
        state=view.state,
        submitted_at=view.submitted_at,
        started_at=view.started_at,
        finished_at=view.finished_at,
        attempts=view.attempts,
        worker=view.worker,
        model=view.model,
        size_bytes=view.size_bytes,
        media_type=view.media_type,
        result=_result(view),
        error=error or None,
    )


def _result(view: messages.JobView) -> Result | None:
    if not view.top5:
        return None
    best = view.top5[0]
    return Result(
        label=best.label,
        class_id=best.class_id,
        confidence=best.confidence,
        top5=view.top5,
        timings_ms=view.timings_ms,
    )


def submission(reply: messages.Submission) -> dict[str, Any]:
    """Show a submission; `done` counts terminal jobs, `progress` is done / total."""
    counts = {state: reply.counts.get(state, 0) for state in STATES}
    done = sum(counts[state] for state in TERMINAL_STATES)
    return {
        "id": reply.id,
        "submitted_at": reply.submitted_at,
        "total": reply.total,
        "done": done,
        "progress": done / reply.total if reply.total else 1.0,
        "counts": counts,
    }


def model(reply: messages.ModelView) -> dict[str, Any]:
    """Show the model in force: its card, flat, with `warning` and `ready_workers`."""
    card: dict[str, Any] = msgspec.to_builtins(reply.card)
    return card | {"warning": reply.warning, "ready_workers": reply.ready_workers}


def worker(view: messages.WorkerView) -> dict[str, Any]:
    """Show one worker; every field is present, also those at their default."""
    shown: dict[str, Any] = msgspec.structs.asdict(view)
    if view.fault is not None:
        shown["fault"] = {"code": view.fault.code, "message": view.fault.message}
    return shown


def stats(reply: messages.Stats) -> dict[str, Any]:
    """Show the core's snapshot."""
    shown: dict[str, Any] = msgspec.to_builtins(reply)
    shown.pop("request")
    shown.pop("type")
    return shown
