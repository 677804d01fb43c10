"""Numbers inside, names outside: `j17` is job 17, `s3` submission 3."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

# Times that are shown lie close together.
SECONDS_REMEMBERED_MAX = 64


def job_id(job: int) -> str:
    """What people and workers call job number `job`."""
    return f"j{job}"


def job_number(name: str) -> int:
    """The inverse of `job_id`; the message's pattern has checked the form."""
    return int(name[1:])


def submission_id(submission: int) -> str:
    """What people call submission number `submission`."""
    return f"s{submission}"


def submission_number(name: str) -> int:
    """The inverse of `submission_id`."""
    return int(name[1:])


def rfc3339(seconds: float | None) -> str | None:
    """Wall-clock seconds since the epoch as RFC 3339 UTC with milliseconds."""
    if seconds is None:
        return None
    return stamp(seconds)


def stamp(seconds: float) -> str:
    """As `rfc3339`, for a time that is there."""
    milliseconds = int(seconds * 1000)
    return f"{_to_the_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=SECONDS_REMEMBERED_MAX)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
