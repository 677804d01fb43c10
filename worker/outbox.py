"""Results that the master hasn't answered yet.

A result stays here from the moment it exists until `Accepted` or `Stale`
names its job and token, over any number of reconnects. The agent begins no
job that might not find room here, so nothing is ever dropped for want of it.
"""

from __future__ import annotations

import msgspec

from wire import messages as m

CAPACITY_RESULTS = 1024


class Outbox:
    """Unanswered results by job, oldest first, at most one a job."""

    def __init__(self) -> None:
        self._results: dict[str, m.Result] = {}

    def __len__(self) -> int:
        return len(self._results)

    def pending(self) -> list[m.Result]:
        """All unanswered results, oldest first."""
        return list(self._results.values())

    def put(self, result: m.Result) -> None:
        """Keep a result until it is answered; a job's newer result replaces its older one."""
        self._results.pop(result.job, None)
        self._results[result.job] = result

    def answered(self, job: str, token: int) -> None:
        """Forget the result that this answer is about; answers to older tokens pass."""
        result = self._results.get(job)
        if result is not None and result.token == token:
            del self._results[job]

    def readdress(self, job: str, token: int, model: str | None) -> m.Result | None:
        """The kept result under a new token, if it still answers the job; else None.

        A retryable fault or another model's answer is forgotten instead: the
        new lease asks for a new attempt.
        """
        result = self._results.pop(job, None)
        if result is None:
            return None
        if result.fault is not None and result.fault.retryable:
            return None
        if model is not None and result.model != model:
            return None
        renewed = msgspec.structs.replace(result, token=token)
        self._results[job] = renewed
        return renewed
