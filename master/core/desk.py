"""What web and admin connections may ask of the core, beyond submitting and reading."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from master.core.intake import Refusal
from master.core.metrics import Reading as MetricsReading
from master.core.names import job_id
from master.core.waiters import Waiter
from master.models.choice import Choice, remember
from master.models.resolve import Resolved, resolve
from master.scheduler import events as ev
from master.states import TERMINAL, Admission, Liveness
from master.store.base import JobRow
from wire.errors import EnvironmentFault
from wire.messages import (
    Message,
    ModelView,
    Refused,
    SetModel,
    Stats,
    Submit,
    Submitted,
    Upload,
    WorkerView,
)

if TYPE_CHECKING:
    from master.core.service import Core

SLICE_JOBS = 1_000
RETRY_BYTES_MAX = 256 * 2**20


class Desk:
    """Implements `clients.ClientHost` on the core."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.reading = core.reading
        self.intake = core.intake
        self.hub = core.hub
        self._swapping = asyncio.Lock()

    # --- waiting ------------------------------------------------

    def wait(self, jobs: list[int], timeout_s: float, done: Callable[[], None]) -> Waiter | None:
        """Call `done` when all jobs have ended or time is up; None if that was at once."""
        return self._core.wait(jobs, timeout_s, done)

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting: the asker is gone."""
        self._core.waiters.forget(waiter)

    # --- changing ------------------------------------------------

    async def cancel(self, jobs: list[int] | None) -> int:
        """Cancel open jobs, a slice at a time so that heartbeats get their turn between."""
        cancelled = 0
        async for numbers in self._slices(jobs):
            open_jobs = [number for number in numbers if number in self._core.ledger]
            self._core.feed(ev.JobsCancelled(open_jobs, "cancelled by a request"))
            cancelled += len(open_jobs)
            await asyncio.sleep(0)
        await self._core.durable.idle_after_now()
        return cancelled

    async def remove(self, jobs: list[int] | None) -> int:
        """Cancel where needed, then delete jobs and images."""
        await self.cancel(jobs)
        removed = await self._core.durable.result(self._core.store.remove(jobs))
        self._core.recount(removed)
        names = [job_id(job) for job in removed]
        for start in range(0, len(names), SLICE_JOBS):
            self.hub.publish("removed", {"jobs": names[start : start + SLICE_JOBS]})
        return len(removed)

    async def retry(self, jobs: list[int]) -> Submitted:
        """New jobs, in a submission of their own, with the images of ended ones."""
        images = await self._again(jobs)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.intake.submit({}, Submit(request=0, images=images), answer.set_result)
        reply = await answer
        if isinstance(reply, Refused):
            raise Refusal(reply.code, reply.message, reply.retry_after_s)
        assert isinstance(reply, Submitted)
        return reply

    async def _again(self, jobs: list[int]) -> list[Upload]:
        uploads: list[Upload] = []
        for job in jobs:
            try:
                row, image = await self.reading.run(partial(self._core.store.image, job))
            except KeyError:
                raise Refusal("not_found", f"there is no job {job_id(job)}") from None
            self._check_retryable(row)
            uploads.append(Upload(name=row.name, media_type=row.media_type, data=image))
            if sum(len(upload.data) for upload in uploads) > RETRY_BYTES_MAX:
                raise Refusal(
                    "too_many_images",
                    f"these jobs have over {RETRY_BYTES_MAX} bytes; retry fewer at once",
                )
        return uploads

    @staticmethod
    def _check_retryable(row: JobRow) -> None:
        if row.state is None or row.state == "succeeded":
            state = row.state or "not ended yet"
            raise Refusal(
                "not_retryable",
                f"{job_id(row.job)} is {state}; only failed and cancelled jobs can be retried",
            )

    async def _slices(self, jobs: list[int] | None) -> AsyncIterator[list[int]]:
        if jobs is not None:
            for start in range(0, len(jobs), SLICE_JOBS):
                yield jobs[start : start + SLICE_JOBS]
            return
        before: int | None = None
        while True:
            rows = await self.reading.run(partial(self._open_page, before))
            if not rows:
                return
            yield [row.job for row in rows]
            before = rows[-1].job

    def _open_page(self, before: int | None) -> list[JobRow]:
        return self._core.store.page(
            states=(), include_open=True, submission=None, before=before, limit=SLICE_JOBS
        )

    # --- the cluster ------------------------------------------------

    def workers(self) -> list[WorkerView]:
        """The cluster."""
        return self._core.roster.views()

    def drain_worker(self, worker: str) -> int:
        """Ask a worker to finish and leave."""
        sessions = self._core.roster.named(worker)
        for session in sessions:
            self._core.feed(ev.DrainWorkerAsked(session.key, "asked over the API"))
            self._core.worker_changed(session)
        return len(sessions)

    def model(self, request: int) -> ModelView:
        """The card in force."""
        model = self._core.model
        return ModelView(
            request=request,
            card=model.card,
            warning=model.warning,
            ready_workers=self.ready_workers(),
        )

    async def set_model(self, message: SetModel, *, any_path: bool) -> ModelView:
        """Find the weights as at start, off the loop; then move the cluster."""
        core = self._core
        if self._swapping.locked():
            raise Refusal("conflict", "another change of the model is under way", 5.0)
        async with self._swapping:
            weights = _weights_path(message.weights, core.config.data_dir, any_path=any_path)
            choice = Choice(message.model, weights)
            try:
                model = await asyncio.to_thread(_find, choice, core.config.offline)
            except EnvironmentFault as fault:
                raise Refusal("model_refused", fault.reason) from fault
            kept_in, given = core.config.data_dir, core.config.given
            await asyncio.to_thread(remember, kept_in, given, choice)
            core.swap_model(model)
        return self.model(message.request)

    def ready_workers(self) -> int:
        """Workers that passed their warm-up, are alive and take work."""
        core = self._core
        now = core.clock.now()
        count = 0
        for key in core.roster.sessions:
            stats = core.scheduler.worker_stats(key, now)
            alive = stats.liveness is not Liveness.DEAD
            count += stats.ready and alive and stats.admission is Admission.ACCEPTING
        return count

    def stats(self, request: int) -> Stats:
        """Counters and gauges."""
        core = self._core
        now = core.clock.now()
        reading = self.reading_now()
        limits = core.config.limits
        return Stats(
            request=request,
            counts=dict(reading.jobs),
            queued_bytes=reading.queued_bytes,
            queue_limit_jobs=limits.queue_jobs_max,
            queue_limit_bytes=limits.queue_bytes_max,
            drain_rate_per_s=round(core.drained.per_second(now), 3),
            accept_rate_per_s=round(core.accepted.per_second(now), 3),
            workers_ready=self.ready_workers(),
            workers_alive=reading.workers.get(Liveness.ALIVE.value, 0),
            uptime_s=round(reading.uptime_s, 3),
            resident_bytes=core.metrics_text.resident_bytes(),
            counters=dict(reading.counters),
            latency_ms=core.latency_ms.read(50, 90, 99),
            draining=core.draining is not None,
            storage_fault=core.store.fault(),
        )

    def metrics(self) -> str:
        """Prometheus text."""
        return self._core.metrics_text.render()

    def reading_now(self) -> MetricsReading:
        """One consistent reading of the core."""
        core = self._core
        jobs = {**core.scheduler.counts(), **core.ended_counts}
        # Decided but not yet durable: still leased, for everybody outside.
        undecided = sum(count for state, count in jobs.items() if state not in TERMINAL)
        jobs["leased"] = jobs.get("leased", 0) + max(0, core.ledger.jobs - undecided)
        liveness = Counter(
            core.scheduler.worker_stats(key, core.clock.now()).liveness.value
            for key in core.roster.sessions
        )
        return MetricsReading(
            jobs={str(state): count for state, count in jobs.items()},
            queued_bytes=core.ledger.total_bytes,
            workers={state.value: liveness.get(state.value, 0) for state in Liveness},
            counters=core.scheduler.counters,
            subscribers=core.hub.subscribers,
            waiters=core.waiters.waiting,
            uptime_s=core.clock.uptime_s(),
            storage_failing=core.store.fault() is not None,
            links={
                session.name: (len(session.streams), session.retransmitted())
                for session in core.roster.sessions.values()
            },
        )

    def shut_down(self, reason: str) -> None:
        """Drain and exit."""
        self._core.shut_down(reason)


def _find(choice: Choice, offline: bool) -> Resolved:
    return resolve(choice.model, choice.weights, offline=offline)


def _weights_path(name: str | None, data_dir: Path, *, any_path: bool) -> Path | None:
    """Where a request's weights lie; over HTTP nothing but one folder can be named."""
    if name is None:
        return None
    if any_path:
        return Path(name)
    folder = data_dir / "models"
    if Path(name).name != name or name in (".", ".."):
        raise Refusal(
            "weights_not_allowed",
            f"{name!r} is not the name of a file in {folder}; put the file there, or use "
            "`master model set` on the master's machine",
        )
    return folder / name
