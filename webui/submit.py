"""POST /jobs in its three forms, GET /jobs/ID with a wait, and GET /classify."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import msgspec

from webui import parameters, views
from webui.config import Limits
from webui.core import Core
from webui.exchange import Budget, Exchange
from webui.fetch import Fetcher
from webui.forms import FormReader, clean_media_type, clean_name, image_too_large
from webui.intake import Intake
from webui.problems import Problem
from wire import messages

log = logging.getLogger("webui.submit")

HOW = (
    "send images as multipart/form-data in the field 'image', one image as the body with "
    'Content-Type image/* or application/octet-stream, or JSON {"url": "https://…"}'
)
RAW_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream"})
# What is kept back from a deadline to write the answer.
ANSWER_S = 0.5


class UrlBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON form of a submission."""

    url: str
    name: str | None = None


class Submitting:
    """The handlers that accept images and wait for jobs."""

    def __init__(self, core: Core, limits: Limits, budget: Budget, fetcher: Fetcher) -> None:
        self._core = core
        self._limits = limits
        self._budget = budget
        self._fetcher = fetcher

    async def post_jobs(self, exchange: Exchange) -> None:
        """Accept a submission; answers 202, or 200 when all jobs ended within the wait."""
        _check_accept(exchange)
        wait_s = parameters.wait_s(exchange.query, exchange.headers, self._limits.wait_s)
        submission, jobs = await self._accept(exchange, patient=wait_s > 0)
        log.debug("submission=%s jobs=%d accepted", submission, len(jobs))
        complete = all(job.state in views.TERMINAL_STATES for job in jobs)
        if wait_s > 0 and not complete:
            jobs, complete = await self.wait(jobs, wait_s)
        headers = [("Location", f"/api/v1/submissions/{submission}")]
        if "prefer" in exchange.headers and wait_s > 0:
            headers.append(("Preference-Applied", f"wait={wait_s:g}"))
        body = {"submission": submission, "jobs": [views.job(job) for job in jobs]}
        await exchange.respond_json(200 if wait_s > 0 and complete else 202, body, headers)

    async def get_job(self, exchange: Exchange, job_id: str) -> None:
        """Answer one job, at once or when it has ended within the wait."""
        _check_accept(exchange)
        wait_s = parameters.wait_s(exchange.query, exchange.headers, self._limits.wait_s)
        job = await self._job(parameters.job_id(job_id))
        if wait_s > 0 and job.state not in views.TERMINAL_STATES:
            (job,), _ = await self.wait([job], wait_s)
        await exchange.respond_json(200, views.job(job))

    async def classify(self, exchange: Exchange) -> None:
        """Fetch a URL, classify it, answer within `classify_s` in any case."""
        _check_accept(exchange)
        cap_s = self._limits.classify_s
        asked = parameters.seconds("timeout", parameters.last(exchange.query, "timeout"), 1e9)
        deadline = time.monotonic() + min(asked or cap_s, cap_s) - ANSWER_S
        url = parameters.last(exchange.query, "url")
        if not url:
            raise Problem("invalid_parameter", "url is missing: /api/v1/classify?url=https://…")
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                job = await self._accept_url(url, deadline)
        except TimeoutError:
            raise Problem("url_timeout", "the image couldn't be accepted in time") from None
        (job,), complete = await self.wait([job], deadline - time.monotonic())
        headers = [("Location", f"/api/v1/jobs/{job.id}")]
        await exchange.respond_json(200 if complete else 202, views.job(job), headers)

    async def wait(
        self, jobs: list[messages.JobView], wait_s: float
    ) -> tuple[list[messages.JobView], bool]:
        """Wait until all jobs are terminal or the time is over; never fails.

        The jobs are accepted: when the core is away meanwhile, what was known
        is answered.
        """
        deadline = time.monotonic() + wait_s
        known = {job.id: job for job in jobs}
        while (left_s := deadline - time.monotonic()) > 0:
            waiting = messages.WaitJobs(request=0, jobs=list(known), timeout_s=left_s)
            try:
                reply = await self._core.ask(waiting, messages.Jobs, left_s + ANSWER_S / 2)
            except Problem as problem:
                if problem.code != "core_unavailable":
                    raise
                await asyncio.sleep(min(0.2, left_s))  # the pace of asking again, not a signal
                continue
            known.update((job.id, job) for job in reply.jobs)
            return list(known.values()), reply.complete
        return list(known.values()), False

    # --- reading the three forms ----------------------------------------------------------

    async def _accept(
        self, exchange: Exchange, *, patient: bool
    ) -> tuple[str, list[messages.JobView]]:
        timeout_s = parameters.seconds(
            "timeout", parameters.last(exchange.query, "timeout"), parameters.TIMEOUT_S_MAX
        )
        key = parameters.idempotency_key(exchange.headers)
        intake = Intake(
            self._core,
            self._limits,
            self._budget,
            key=key,
            timeout_s=timeout_s,
            patient=patient,
        )
        async with intake:
            if exchange.content_type == "application/json":
                return await self._accept_json(exchange, intake)
            count = 0
            async for image in self._images(exchange):
                count += 1
                await intake.add(image)
            if count == 0:
                raise Problem("no_image", HOW)
            return await intake.finish()

    async def _accept_json(
        self, exchange: Exchange, intake: Intake
    ) -> tuple[str, list[messages.JobView]]:
        try:
            body = msgspec.json.decode(await exchange.small_body(), type=UrlBody)
        except (msgspec.DecodeError, UnicodeDecodeError) as fault:
            raise Problem("bad_request", f"{fault}; {HOW}") from None
        fetched = await self._fetcher.fetch(body.url)
        name = clean_name(body.name or fetched.name)
        await intake.add(
            messages.Upload(name=name, media_type=fetched.media_type, data=fetched.data)
        )
        return await intake.finish(digest=f"{body.url}\0{body.name}")

    async def _accept_url(self, url: str, deadline: float) -> messages.JobView:
        fetched = await self._fetcher.fetch(url, deadline - time.monotonic())
        left_s = max(1.0, deadline - time.monotonic())
        intake = Intake(self._core, self._limits, self._budget, key=None, timeout_s=left_s)
        async with intake:
            await intake.add(
                messages.Upload(
                    name=clean_name(fetched.name), media_type=fetched.media_type, data=fetched.data
                )
            )
            _, jobs = await intake.finish()
        return jobs[0]

    def _images(self, exchange: Exchange) -> AsyncIterator[messages.Upload]:
        kind = exchange.content_type
        if kind == "multipart/form-data":
            return self._form_images(exchange)
        if kind.startswith("image/") or kind in RAW_TYPES:
            return self._raw_image(exchange)
        raise Problem("unsupported_media_type", f"{kind!r} isn't taken; {HOW}")

    async def _form_images(self, exchange: Exchange) -> AsyncIterator[messages.Upload]:
        reader = FormReader(exchange.headers["content-type"], self._limits)
        held = 0
        try:
            async for piece in exchange.body(self._limits.request_bytes):
                images = reader.feed(piece)
                # Whole images are counted by the intake; the unfinished one here.
                self._budget.give(held)
                held = 0
                for image in images:
                    yield image
                self._budget.take(reader.held_bytes)
                held = reader.held_bytes
            reader.finish()
        finally:
            self._budget.give(held)

    async def _raw_image(self, exchange: Exchange) -> AsyncIterator[messages.Upload]:
        name = _raw_name(exchange)
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in exchange.body(self._limits.request_bytes):
                if size + len(piece) > self._limits.image_bytes:
                    raise image_too_large(name, self._limits)
                self._budget.take(len(piece))
                size += len(piece)
                pieces.append(piece)
        finally:
            self._budget.give(size)
        if size:
            media_type = clean_media_type(exchange.content_type)
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            yield messages.Upload(name=name, media_type=media_type, data=data)

    async def _job(self, job_id: str) -> messages.JobView:
        asked = messages.GetJobs(request=0, jobs=[job_id])
        reply = await self._core.ask(asked, messages.Jobs, self._limits.core_call_s)
        if not reply.jobs:
            raise Problem("not_found", f"there is no job {job_id}; it may have been removed")
        return reply.jobs[0]


def _raw_name(exchange: Exchange) -> str:
    given = parameters.last(exchange.query, "name") or exchange.headers.get("x-filename", "")
    return clean_name(given) if given else "image"


def _check_accept(exchange: Exchange) -> None:
    if not parameters.accepts(exchange.headers.get("accept"), "application/json"):
        raise Problem("not_acceptable", "the answer is application/json")
