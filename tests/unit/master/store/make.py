"""Short ways to say what a test puts into a store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from master.states import JobState, Outcome
from master.store.base import AttemptEnd, JobEnd, NewJob, NewPart

SECOND = 1_700_000_000.0


def image(job: int, size_bytes: int = 1000) -> bytes:
    """Bytes that only this job has."""
    return random.Random(job).randbytes(size_bytes)


def part(
    submission: int,
    jobs: Sequence[int],
    *,
    first: bool = True,
    last: bool = True,
    key: str | None = None,
    digest: str | None = None,
    size_bytes: int = 1000,
    deadline_at: float | None = None,
    patient: bool = False,
) -> NewPart:
    """A part whose images come from `image`."""
    return NewPart(
        submission=submission,
        jobs=[NewJob(job, f"{job}.jpg", "image/jpeg", image(job, size_bytes)) for job in jobs],
        submitted_at=SECOND,
        deadline_at=deadline_at,
        first=first,
        last=last,
        key=key,
        digest=digest,
        patient=patient,
    )


def end(job: int, state: JobState = JobState.SUCCEEDED, **fields: Any) -> JobEnd:
    """An outcome."""
    return JobEnd(**{"job": job, "state": state, "attempts": 1, "finished_at": SECOND + 1} | fields)


def attempt(job: int, token: int, outcome: Outcome = Outcome.LOST, **fields: Any) -> AttemptEnd:
    """One row of the audit."""
    given = {
        "worker": "w1",
        "granted_at": SECOND,
        "started_at": SECOND,
        "ended_at": SECOND + 1,
        "blamed": False,
        "error_code": None,
        "error_message": "",
    }
    return AttemptEnd(**{"job": job, "token": token, "outcome": outcome} | given | fields)
