"""One image from its source to its result, through every fault that passes.

Promises that an image is submitted under one `Idempotency-Key`, the same at
every try, so that however many answers are lost there is one job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from client.config import Clock, Limits
from client.errors import ClientError, FailedImage, Refused, TimedOut, Unreachable
from client.job import Job, Submitted, read
from client.retry import AWAY_CODES, Backoff, Verdict, judge
from client.sources import Upload
from client.transport import Answer, Lost, Request, Transport


@dataclass(frozen=True, slots=True)
class Retry:
    """A try that failed and will be repeated: why, and in how many seconds."""

    label: str
    reason: str
    delay_s: float


@dataclass(slots=True)
class Call:
    """What the images of one call share: deadline, patience, and when the server was heard.

    `met` says that some answer came, `well_at` when the last one of a server that is well
    did, `moved_at` when the last one took an image a step further.
    """

    server: str
    limits: Limits
    clock: Clock
    deadline: float | None
    started_at: float
    on_retry: Callable[[Retry], object]
    on_wait: Callable[[Job], object]
    met: bool = False
    well_at: float = -math.inf
    moved_at: float = -math.inf

    def left_s(self) -> float:
        """Seconds until the deadline; infinite without one.

        Raises:
            TimedOut: it has passed.
        """
        if self.deadline is None:
            return math.inf
        left_s = self.deadline - self.clock.now()
        if left_s <= 0:
            raise self.timed_out("the deadline passed")
        return left_s

    def timed_out(self, what: str) -> TimedOut:
        """The error of a deadline that has passed or can't be met."""
        allowed_s = (self.deadline or 0.0) - self.started_at
        return TimedOut(f"{what}: {allowed_s:g} s were allowed; give more time (--deadline)")

    def heard(self, verdict: Verdict) -> None:
        """Note an answer."""
        self.met = True
        if verdict is not Verdict.AGAIN:
            self.well_at = self.clock.now()
        if verdict not in (Verdict.AGAIN, Verdict.QUEUE):
            self.moved_at = self.clock.now()

    def patience(self, verdict: Verdict) -> tuple[float, float]:
        """Since when nothing but `verdict` was heard, and for how many seconds that is borne."""
        if verdict is Verdict.QUEUE:
            return self.moved_at, self.limits.queue_patience_s
        if self.met:
            return self.well_at, self.limits.patience_s
        return self.well_at, min(self.limits.first_patience_s, self.limits.patience_s)


@dataclass(frozen=True, slots=True)
class _Setback:
    """A try that brought no job. `away`: nobody was there to be spared."""

    verdict: Verdict
    error: ClientError
    retry_after_s: float = 0.0
    away: bool = False


class Journey:
    """One image on its way. `job` is what was last heard of it, None before the first answer."""

    def __init__(self, call: Call, transport: Transport, label: str, key: str) -> None:
        self.job: Job | None = None
        self.tries = 0
        self._call = call
        self._transport = transport
        self._label = label
        self._key = key

    async def travel(self, upload: Upload) -> Job:
        """Submit the image and wait for its end; the job, which succeeded.

        Raises:
            FailedImage: this image has no result.
            Unreachable, Refused, TimedOut: nor will others have one.
        """
        job = self.job = await self._submit(upload)
        del upload  # the server has the bytes now; none are held while the job waits
        while not job.ended:
            self._call.on_wait(job)
            if self._call.left_s() <= self._call.limits.answer_s:
                await self._call.clock.sleep(self._call.limits.ask_s)
            job = self.job = await self._follow(job.id)
        if job.state == "succeeded" and job.result is not None:
            return job
        raise self._no_result(job)

    async def _submit(self, upload: Upload) -> Job:
        headers = {"Content-Type": upload.media_type, "Idempotency-Key": self._key}
        request = Request("POST", "/jobs", upload.body, headers)
        fixed = {"name": upload.name} if upload.name is not None else {}
        if (left_s := self._call.left_s()) < math.inf:
            # The key stands for this value too: it is drawn once, and not at every try.
            fixed["timeout"] = f"{left_s:.3f}"
        return await self._until_taken(request, fixed, _submitted_job)

    async def _follow(self, job_id: str) -> Job:
        request = Request("GET", f"/jobs/{job_id}")
        return await self._until_taken(request, {}, lambda answer: read(answer.body, Job))

    async def _until_taken(
        self, request: Request, fixed: Mapping[str, str], job: Callable[[Answer], Job | None]
    ) -> Job:
        limits, began_at, few = self._call.limits, self._call.clock.now(), 0
        backoff = Backoff(limits.backoff_base_s, limits.backoff_cap_s)
        while True:
            came = await self._try(request, fixed, job)
            if isinstance(came, Job):
                return came
            few += came.verdict is Verdict.FEW
            if came.verdict in (Verdict.IMAGE, Verdict.SERVER) or few >= limits.tries_few:
                raise came.error
            cap_s = limits.away_cap_s if came.away else math.inf
            delay_s = backoff.next_delay_s(self._call.clock.rng, came.retry_after_s, cap_s)
            await self._pause(came, delay_s, began_at)

    async def _try(
        self, request: Request, fixed: Mapping[str, str], job: Callable[[Answer], Job | None]
    ) -> Job | _Setback:
        limits, left_s = self._call.limits, self._call.left_s()
        wait_s = max(0.0, min(limits.wait_s, left_s - limits.answer_s))
        total_s = min(left_s, limits.upload_s + limits.silent_s + wait_s)
        params = {**fixed, "wait": f"{wait_s:.3f}"}
        self.tries += 1
        try:
            answer = await self._transport.send(
                request, params, silent_s=wait_s + limits.silent_s, total_s=total_s
            )
        except Lost as lost:
            hint = "is the master running, and is this its address (--server)?"
            text = f"no answer from {self._call.server}: {lost}; {hint}"
            return _Setback(Verdict.AGAIN, Unreachable("unreachable", text), away=True)
        taken = job(answer) if 200 <= answer.status < 300 else None
        came = taken or self._setback(answer, request)
        self._call.heard(Verdict.TAKE if isinstance(came, Job) else came.verdict)
        return came

    def _setback(self, answer: Answer, request: Request) -> _Setback:
        """What an answer without a job means."""
        problem = answer.problem
        verdict = judge(answer.status, problem.code)
        said = problem.detail or f"HTTP status {answer.status}"
        if verdict is Verdict.TAKE:
            refused = Refused("no_lookout", f"{self._call.server} answers, but not as Lookout does")
            return _Setback(Verdict.FEW, refused, answer.retry_after_s)
        if request.method == "GET" and problem.code == "not_found":
            return _Setback(Verdict.IMAGE, FailedImage(problem.code, f"{self._label}: {said}"))
        if verdict in (Verdict.IMAGE, Verdict.FEW):
            code = problem.code or f"http_{answer.status}"
            error: ClientError = FailedImage(code, f"{self._label}: {said}")
        else:
            error = _refused(self._call.server, answer, said)
        away = problem.code in AWAY_CODES
        return _Setback(verdict, error, answer.retry_after_s, away)

    async def _pause(self, came: _Setback, delay_s: float, began_at: float) -> None:
        """Wait before the next try, unless that would outlast the deadline or the patience."""
        now = self._call.clock.now()
        if delay_s >= self._call.left_s():
            raise self._call.timed_out(f"{came.error.message}; the deadline is before a next try")
        since, patience_s = self._call.patience(came.verdict)
        # A call that nobody read from for a while has an old `since`, and no trouble yet.
        if now + delay_s > max(since, began_at) + patience_s:
            text = f"{came.error.message} (given up after {now - began_at:.0f} s: "
            raise type(came.error)(came.error.code, f"{text}{patience_s:g} s are allowed for that)")
        self._call.on_retry(Retry(self._label, came.error.message, delay_s))
        await self._call.clock.sleep(delay_s)

    def _no_result(self, job: Job) -> ClientError:
        code: str = job.state
        text = f"its job {job.id} was {job.state}"
        if job.error is not None:
            code, text = job.error.code, job.error.message
        if code == "deadline_exceeded" and self._call.deadline is not None:
            return self._call.timed_out(f"{self._label}: {text}")
        return FailedImage(code, f"{self._label}: {text}")


def _submitted_job(answer: Answer) -> Job | None:
    submitted = read(answer.body, Submitted)
    return submitted.jobs[0] if submitted is not None and len(submitted.jobs) == 1 else None


def _refused(server: str, answer: Answer, said: str) -> Refused:
    code = answer.problem.code or f"http_{answer.status}"
    if answer.location and 300 <= answer.status < 400:
        return Refused(code, f"{server} sends elsewhere: use --server with {answer.location!r}")
    return Refused(code, f"{server} takes no images: {said}")
