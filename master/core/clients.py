"""One web or admin connection: its requests, answered by the core.

Requests that only read run their SQL in a small pool; the ones that change
something go through the scheduler or the intake on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from master.core.hub import Hub
from master.core.intake import Intake, OpenUpload, Refusal
from master.core.names import job_number
from master.core.reading import Reading
from master.core.waiters import Waiter
from master.logs import fields
from wire.aio import Connection
from wire.messages import (
    Abandon,
    CancelJobs,
    Done,
    DrainWorker,
    GetImage,
    GetJobs,
    GetMetrics,
    GetModel,
    GetStats,
    GetSubmission,
    GetWorkers,
    Jobs,
    JobView,
    ListJobs,
    Message,
    Metrics,
    ModelView,
    Refused,
    RemoveJobs,
    RetryJobs,
    SetModel,
    Shutdown,
    Stats,
    Submit,
    Submitted,
    Subscribe,
    WaitJobs,
    Workers,
    WorkerView,
)

log = logging.getLogger("lookout.core")

ENDED = frozenset({"succeeded", "failed", "cancelled"})


class ClientHost(Protocol):
    """What a web connection needs of the core."""

    intake: Intake
    hub: Hub
    reading: Reading

    def wait(self, jobs: list[int], timeout_s: float, done: Callable[[], None]) -> Waiter | None:
        """Call `done` when all jobs have ended or time is up."""

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting: the asker is gone."""

    async def cancel(self, jobs: list[int] | None) -> int:
        """Cancel open jobs; how many."""

    async def remove(self, jobs: list[int] | None) -> int:
        """Cancel where needed, then delete; how many."""

    async def retry(self, jobs: list[int]) -> Submitted:
        """New jobs with the images of old ones."""

    def workers(self) -> list[WorkerView]:
        """The cluster."""

    def drain_worker(self, worker: str) -> int:
        """Ask a worker to leave; how many have that name."""

    def model(self, request: int) -> ModelView:
        """The card in force."""

    async def set_model(self, message: SetModel, *, any_path: bool) -> ModelView:
        """Move the cluster to another model."""

    def stats(self, request: int) -> Stats:
        """Counters and gauges."""

    def metrics(self) -> str:
        """Prometheus text."""

    def shut_down(self, reason: str) -> None:
        """Drain and exit."""


class ClientSession:
    """Answers one connection's requests; remembers its open uploads, streams and waits."""

    def __init__(self, number: int, connection: Connection, host: ClientHost) -> None:
        self.number = number
        self._connection = connection
        self._host = host
        self._uploads: dict[int, OpenUpload] = {}
        self._waiters: dict[int, Waiter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True

    def receive(self, message: Message) -> None:
        """Start answering one request."""
        direct = _DIRECT.get(type(message))
        if direct is not None:
            direct(self, message)
        else:
            self._begin(message)

    def _begin(self, message: Message) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def closed(self) -> None:
        """The connection ended: nobody hears answers any more."""
        self._open = False
        self._host.intake.connection_lost(self._uploads)
        self._host.hub.unsubscribe(self.number)
        for waiter in self._waiters.values():
            self._host.forget(waiter)
        for task in self._tasks:
            task.cancel()

    def _reply(self, message: Message) -> None:
        if self._open:
            self._connection.send(message)

    async def _answer(self, message: Message) -> None:
        request: int = getattr(message, "request", 0)
        handler = _ASKED.get(type(message))
        try:
            if handler is None:
                raise Refusal("unknown_request", f"{type(message).__name__} is not a request")
            self._reply(await handler(self, message))
        except Refusal as refusal:
            self._reply(refusal.reply(request))
        except Exception:
            # The edge of one request: the connection and the others go on.
            log.exception(**fields("request_failed", type=type(message).__name__))
            reason = "the core failed on this request; its log has the traceback"
            self._reply(Refused(request=request, code="internal_error", message=reason))

    # --- answered on the loop ------------------------------------------------

    def _submit(self, message: Submit) -> None:
        self._host.intake.submit(self._uploads, message, self._reply)

    def _subscribe(self, message: Subscribe) -> None:
        self._host.hub.subscribe(
            self.number, message.request, message.after, self._reply, self._unread_bytes
        )

    def _unread_bytes(self) -> int:
        return self._connection.write_buffer_bytes

    def _wait(self, message: WaitJobs) -> None:
        jobs = [job_number(job) for job in message.jobs]

        def done() -> None:
            self._waiters.pop(message.request, None)
            if self._open:
                self.receive(GetJobs(request=message.request, jobs=message.jobs))

        waiter = self._host.wait(jobs, message.timeout_s, done)
        if waiter is not None:
            self._waiters[message.request] = waiter

    # --- answered by a task ------------------------------------------------

    async def _abandon(self, message: Abandon) -> Message:
        count = self._host.intake.abandon(self._uploads, message.submission)
        return Done(request=message.request, count=count)

    def _get_jobs_now(self, message: GetJobs) -> None:
        views = self._host.reading.known([job_number(job) for job in message.jobs])
        if views is None:
            self._begin(message)
        else:
            self._reply(_jobs(message, views))

    async def _get_jobs(self, message: GetJobs) -> Message:
        views = await self._host.reading.jobs([job_number(job) for job in message.jobs])
        return _jobs(message, views)

    async def _list_jobs(self, message: ListJobs) -> Message:
        return await self._host.reading.page(message)

    async def _get_image(self, message: GetImage) -> Message:
        return await self._host.reading.image(message)

    async def _get_submission(self, message: GetSubmission) -> Message:
        return await self._host.reading.submission(message)

    async def _cancel(self, message: CancelJobs) -> Message:
        count = await self._host.cancel(_numbers(message.jobs))
        return Done(request=message.request, count=count)

    async def _remove(self, message: RemoveJobs) -> Message:
        count = await self._host.remove(_numbers(message.jobs))
        return Done(request=message.request, count=count)

    async def _retry(self, message: RetryJobs) -> Message:
        submitted = await self._host.retry([job_number(job) for job in message.jobs])
        return Submitted(
            request=message.request, submission=submitted.submission, jobs=submitted.jobs
        )

    async def _workers(self, message: GetWorkers) -> Message:
        return Workers(request=message.request, workers=self._host.workers())

    async def _drain_worker(self, message: DrainWorker) -> Message:
        count = self._host.drain_worker(message.worker)
        if not count:
            raise Refusal("not_found", f"no worker {message.worker!r} is connected")
        return Done(request=message.request, count=count)

    async def _model(self, message: GetModel) -> Message:
        return self._host.model(message.request)

    async def _set_model(self, message: SetModel) -> Message:
        any_path = self._connection.hello.role == "admin"
        return await self._host.set_model(message, any_path=any_path)

    async def _stats(self, message: GetStats) -> Message:
        return self._host.stats(message.request)

    async def _metrics(self, message: GetMetrics) -> Message:
        return Metrics(request=message.request, text=self._host.metrics())

    async def _shutdown(self, message: Shutdown) -> Message:
        self._host.shut_down("asked by an admin connection")
        return Done(request=message.request, count=1)


def _jobs(message: GetJobs, views: list[JobView]) -> Jobs:
    complete = all(view.state in ENDED for view in views)
    return Jobs(request=message.request, jobs=views, complete=complete)


def _numbers(jobs: list[str] | None) -> list[int] | None:
    return None if jobs is None else [job_number(job) for job in jobs]


_DIRECT: dict[type[Message], Callable[[ClientSession, Any], None]] = {
    Submit: ClientSession._submit,
    Subscribe: ClientSession._subscribe,
    WaitJobs: ClientSession._wait,
    GetJobs: ClientSession._get_jobs_now,
}

_ASKED: dict[type[Message], Callable[[ClientSession, Any], Awaitable[Message]]] = {
    Abandon: ClientSession._abandon,
    GetJobs: ClientSession._get_jobs,
    ListJobs: ClientSession._list_jobs,
    GetImage: ClientSession._get_image,
    GetSubmission: ClientSession._get_submission,
    CancelJobs: ClientSession._cancel,
    RemoveJobs: ClientSession._remove,
    RetryJobs: ClientSession._retry,
    GetWorkers: ClientSession._workers,
    DrainWorker: ClientSession._drain_worker,
    GetModel: ClientSession._model,
    SetModel: ClientSession._set_model,
    GetStats: ClientSession._stats,
    GetMetrics: ClientSession._metrics,
    Shutdown: ClientSession._shutdown,
}
