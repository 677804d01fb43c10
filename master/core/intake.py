"""Accepting submissions: limits, numbers, idempotency keys, open submissions.

A part is acknowledged once it is durable. A submission that comes in several
parts is open until its last part is; whoever sends it was told nothing until
then, so if the sender goes away its jobs are cancelled and its key is free.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from master.config import Limits
from master.core.clock import Clock
from master.core.durable import Durable
from master.core.ledger import Ledger
from master.core.names import job_id, stamp, submission_id, submission_number
from master.core.window import Window
from master.logs import fields
from master.store.base import JobStore, KeyRow, NewJob, NewPart, Totals
from master.store.write import Write
from wire.errors import EnvironmentFault
from wire.messages import JobView, Message, Refused, Submit, Submitted

log = logging.getLogger("lookout.core")

RETRY_AFTER_MIN_S = 1.0
RETRY_AFTER_MAX_S = 600.0
Reply = Callable[[Message], None]


@dataclass(eq=False, slots=True)
class OpenUpload:
    """A submission that is still coming in over one connection.

    `replayed` is set when its key is known already: the parts are then only
    read for their digest, and the jobs of then are the answer.
    """

    submission: int
    key: str | None
    replayed: KeyRow | None = None
    jobs: list[int] = field(default_factory=list)
    abandoned: bool = False


class Refusal(Exception):
    """Carries a `Refused` code, message and retry time out of a check."""

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    def reply(self, request: int) -> Refused:
        """As a message."""
        return Refused(
            request=request,
            code=self.code,
            message=self.message,
            retry_after_s=self.retry_after_s,
        )


@dataclass(frozen=True, slots=True)
class IntakeHost:
    """What intake needs of the core, as functions.

    `accepted(jobs, views, deadline)` hands durable jobs to the scheduler, `cancel`
    ends jobs of a submission that was given up, `replay` answers with the jobs
    that a key stands for, `drain_rate` is the measured outcomes per second, `queued` how
    many jobs wait for a worker, `gather_s` how long patient parts may be held back.
    """

    accepted: Callable[[list[int], list[JobView], float | None], None]
    cancel: Callable[[list[int], str], None]
    replay: Callable[[int, KeyRow, Reply], None]
    drain_rate: Callable[[], float]
    queued: Callable[[], int]
    gather_s: Callable[[], float]
    refusing: Callable[[], str | None]


class Intake:
    """Turns `Submit` into durable jobs."""

    def __init__(
        self,
        store: JobStore,
        durable: Durable,
        clock: Clock,
        limits: Limits,
        totals: Totals,
        ledger: Ledger,
        window: Window,
        host: IntakeHost,
    ) -> None:
        self._store = store
        self._durable = durable
        self._clock = clock
        self._limits = limits
        self._ledger = ledger
        self._window = window
        self._host = host
        self._next_job = totals.next_job
        self._next_submission = totals.next_submission
        self._keys_in_flight: dict[str, list[Callable[[], None]]] = {}
        self.pending_bytes = 0
        self.open_uploads = 0

    # --- requests ------------------------------------------------

    def submit(self, uploads: dict[int, OpenUpload], message: Submit, reply: Reply) -> None:
        """Accept one part. `uploads` are the open submissions of the asking connection."""
        first = message.submission is None
        if first and message.key is not None and message.key in self._keys_in_flight:
            # The same request is on its way to disk: answer this one after it.
            again = self._keys_in_flight[message.key]
            again.append(lambda: self.submit(uploads, message, reply))
            return
        try:
            upload = self._upload(uploads, message)
            if upload.replayed is not None:
                self._ghost(uploads, upload, upload.replayed, message, reply)
                return
            self._check(message)
        except Refusal as refusal:
            if first or message.last:
                self._give_up(uploads, message)
            reply(refusal.reply(message.request))
            return
        self._add(uploads, upload, message, reply)

    def abandon(self, uploads: dict[int, OpenUpload], submission: str) -> int:
        """Give up an open submission; says how many jobs it had."""
        upload = uploads.pop(submission_number(submission), None)
        return self._abandon(upload) if upload else 0

    def connection_lost(self, uploads: dict[int, OpenUpload]) -> None:
        """The web process that was sending these is gone."""
        for upload in uploads.values():
            self._abandon(upload)
        uploads.clear()

    # --- steps ------------------------------------------------

    def _upload(self, uploads: dict[int, OpenUpload], message: Submit) -> OpenUpload:
        if message.submission is not None:
            upload = uploads.get(submission_number(message.submission))
            if upload is None:
                raise Refusal("not_found", f"{message.submission} is not open on this connection")
            return upload
        if message.last and not message.images:
            raise Refusal("no_image", "the submission has no images; send at least one")
        known = self._store.key(message.key) if message.key is not None else None
        if known is not None and known.open:
            raise Refusal(
                "key_in_use",
                f"another request with the Idempotency-Key {message.key!r} is still being "
                "received; try again when it is over",
                RETRY_AFTER_MIN_S,
            )
        if known is not None:
            return OpenUpload(known.submission, message.key, replayed=known)
        if self.open_uploads >= self._limits.open_submissions_max:
            raise Refusal(
                "busy", f"{self.open_uploads} submissions are being received", RETRY_AFTER_MIN_S
            )
        self._next_submission += 1
        return OpenUpload(self._next_submission - 1, message.key)

    def _ghost(
        self,
        uploads: dict[int, OpenUpload],
        upload: OpenUpload,
        known: KeyRow,
        message: Submit,
        reply: Reply,
    ) -> None:
        if not message.last:
            uploads[upload.submission] = upload
            name = submission_id(upload.submission)
            reply(Submitted(request=message.request, submission=name, jobs=[], replayed=True))
            return
        uploads.pop(upload.submission, None)
        if message.digest != known.digest:
            refusal = Refusal(
                "idempotency_mismatch",
                f"the Idempotency-Key {known.key!r} was used with another body, for "
                f"{submission_id(known.submission)}; use a new key for a new request",
            )
            reply(refusal.reply(message.request))
            return
        self._host.replay(message.request, known, reply)

    def _check(self, message: Submit) -> None:
        reason = self._host.refusing()
        if reason is not None:
            raise Refusal("draining", reason, 5.0)
        limits = self._limits
        for image in message.images:
            if len(image.data) > limits.image_bytes_max:
                raise Refusal(
                    "image_too_large",
                    f"{image.name or 'an image'} has {len(image.data)} bytes; the limit is "
                    f"{limits.image_bytes_max} bytes an image",
                )
        size = sum(len(image.data) for image in message.images)
        self._check_room(len(message.images), size)
        if self.pending_bytes and self.pending_bytes + size > limits.intake_bytes_max:
            raise Refusal(
                "busy",
                f"{self.pending_bytes} bytes of uploads are on their way to disk; the limit is "
                f"{limits.intake_bytes_max}",
                RETRY_AFTER_MIN_S,
            )

    def _check_room(self, jobs: int, size: int) -> None:
        limits, ledger = self._limits, self._ledger
        if ledger.jobs + jobs > limits.queue_jobs_max:
            over = ledger.jobs + jobs - limits.queue_jobs_max
            raise Refusal(
                "queue_full",
                f"{ledger.jobs} jobs wait; the limit is {limits.queue_jobs_max}",
                self._retry_after_s(over),
            )
        if ledger.total_bytes + size > limits.queue_bytes_max:
            mean = max(1.0, ledger.total_bytes / max(1, ledger.jobs))
            over = math.ceil((ledger.total_bytes + size - limits.queue_bytes_max) / mean)
            raise Refusal(
                "queue_full",
                f"{ledger.total_bytes} bytes of images wait; the limit is "
                f"{limits.queue_bytes_max} bytes",
                self._retry_after_s(over),
            )

    def _retry_after_s(self, jobs_over: int) -> float:
        """When there should be room: jobs that must end first ÷ measured drain rate."""
        rate = self._host.drain_rate()
        wait = jobs_over / rate if rate > 0 else RETRY_AFTER_MAX_S
        return min(RETRY_AFTER_MAX_S, max(RETRY_AFTER_MIN_S, float(math.ceil(wait))))

    def _add(
        self,
        uploads: dict[int, OpenUpload],
        upload: OpenUpload,
        message: Submit,
        reply: Reply,
    ) -> None:
        numbers = list(range(self._next_job, self._next_job + len(message.images)))
        self._next_job += len(numbers)
        part, deadline = self._part(upload, message, numbers)
        size = sum(len(image.data) for image in message.images)
        self.pending_bytes += size
        now = self._clock.now()
        for job, image in zip(numbers, message.images, strict=True):
            self._ledger.add(job, len(image.data), now)
        upload.jobs.extend(numbers)
        self._track(uploads, upload, message)

        def stored(done: Write[None]) -> None:
            self.pending_bytes -= size
            error = done.exception()
            if error is None:
                self._stored(upload, message, part, deadline, reply)
            else:
                self._not_stored(uploads, upload, message, numbers, error, reply)
            if part.last:
                self._wake(upload.key)

        self._durable.then(self._store.add(part), stored)

    def _part(
        self, upload: OpenUpload, message: Submit, numbers: list[int]
    ) -> tuple[NewPart, float | None]:
        now = self._clock.wall()
        timeout_s = message.timeout_s
        if timeout_s is not None:
            timeout_s = min(max(timeout_s, 0.0), self._limits.job_timeout_s_max)
        first = message.submission is None
        part = NewPart(
            submission=upload.submission,
            jobs=[
                NewJob(job, image.name, image.media_type, image.data)
                for job, image in zip(numbers, message.images, strict=True)
            ],
            submitted_at=now,
            deadline_at=now + timeout_s if timeout_s is not None else None,
            first=first,
            last=message.last,
            key=upload.key if first else None,
            digest=message.digest if message.last else None,
            patient=message.patient,
        )
        return part, self._clock.now() + timeout_s if timeout_s is not None else None

    def _track(self, uploads: dict[int, OpenUpload], upload: OpenUpload, message: Submit) -> None:
        if message.submission is None and not message.last:
            uploads[upload.submission] = upload
            self.open_uploads += 1
        elif message.submission is not None and message.last:
            uploads.pop(upload.submission, None)
            self.open_uploads -= 1
        if message.last and upload.key is not None:
            self._keys_in_flight.setdefault(upload.key, [])

    def _stored(
        self,
        upload: OpenUpload,
        message: Submit,
        part: NewPart,
        deadline: float | None,
        reply: Reply,
    ) -> None:
        if self._window.is_near(self._host.queued()):
            for job, image in zip(part.jobs, message.images, strict=True):
                self._window.offer(job.job, image.name, image.data)
        submission = submission_id(upload.submission)
        submitted_at = stamp(part.submitted_at)
        views = [
            JobView(
                id=job_id(job.job),
                submission=submission,
                name=job.name,
                state="queued",
                submitted_at=submitted_at,
                size_bytes=len(job.image),
                media_type=job.media_type,
            )
            for job in part.jobs
        ]
        numbers = [job.job for job in part.jobs]
        self._host.accepted(numbers, views, deadline)
        if upload.abandoned:
            self._host.cancel(numbers, "submission_abandoned")
        reply(
            Submitted(
                request=message.request,
                submission=submission,
                jobs=views,
                gather_s=self._host.gather_s(),
            )
        )

    def _not_stored(
        self,
        uploads: dict[int, OpenUpload],
        upload: OpenUpload,
        message: Submit,
        numbers: list[int],
        error: BaseException,
        reply: Reply,
    ) -> None:
        for job in numbers:
            self._ledger.take(job, self._clock.now())
        kept = upload.jobs[: len(upload.jobs) - len(numbers)]
        upload.jobs = kept
        if uploads.pop(upload.submission, None) is not None:
            self.open_uploads -= 1
        if kept:
            self._cancel(upload)
        code = error.code if isinstance(error, EnvironmentFault) else "storage_failed"
        log.error(**fields("part_not_stored", submission=upload.submission, error=repr(error)))
        reply(Refusal(code, str(error), 30.0).reply(message.request))

    def _wake(self, key: str | None) -> None:
        for again in self._keys_in_flight.pop(key, []) if key is not None else []:
            again()

    def _give_up(self, uploads: dict[int, OpenUpload], message: Submit) -> None:
        if message.submission is not None:
            self.abandon(uploads, message.submission)

    def _abandon(self, upload: OpenUpload) -> int:
        if upload.replayed is not None:
            return 0
        self.open_uploads -= 1
        self._cancel(upload)
        return len(upload.jobs)

    def _cancel(self, upload: OpenUpload) -> None:
        # A part that is still on its way to disk is cancelled when it gets there.
        upload.abandoned = True
        log.info(
            **fields("submission_abandoned", submission=upload.submission, jobs=len(upload.jobs))
        )
        self._host.cancel(upload.jobs, "submission_abandoned")
        self._durable.then(self._store.seal_abandoned(upload.submission), lambda done: None)
