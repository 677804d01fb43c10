"""An in-memory core on a real socket, for tests and for looking at the page.

It speaks the whole protocol between web and core and keeps its word where the
web could notice (open submissions, replays, waits, events with ids, refusals),
but schedules nothing: `workers` imaginary workers each take `job_s` per image,
and the label follows from the bytes. Run it as a program to look at the page:
`python -m tests.fakes.core --http 127.0.0.1:8080`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import math
import random
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from wire import aio, messages
from wire.card import Card, Preprocessing

T = TypeVar("T")
LABELS = (
    "golden retriever", "tabby cat", "red fox", "sea snake", "quail", "hen", "robin",
    "green snake", "macaw", "jellyfish", "snail", "flamingo", "king penguin", "sea lion",
    "tiger", "brown bear", "ladybug", "monarch butterfly", "zebra", "hippopotamus", "llama",
    "weasel", "acoustic guitar", "airliner", "ambulance", "bagel", "beer bottle", "bookcase",
)  # fmt: skip
MAGIC = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
TERMINAL = {"succeeded", "failed", "cancelled"}
EVENTS_KEPT = 5000
TOKEN = "a fake core's token"


@dataclass
class Behaviour:
    """What a test may turn."""

    job_s: float = 0.02
    workers: int = 2
    slots: int = 4
    refuse: dict[str, messages.Refused] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    warning: str | None = None
    forgetful: bool = False  # of what happened while nobody listened, as after a restart
    queue_limit_jobs: int = 1_000_000


@dataclass
class Open:
    """A submission that isn't closed yet, or was seen with a key."""

    id: str
    submitted_at: str
    jobs: list[str] = field(default_factory=list)
    key: str | None = None
    digest: str | None = None


class FakeCore:
    """The core, in a thread of its own. Use as a context manager."""

    def __init__(self, behaviour: Behaviour | None = None, token: str = TOKEN) -> None:
        self.behaviour = behaviour or Behaviour()
        self.token = token
        self.jobs: dict[str, messages.JobView] = {}
        self.images: dict[str, messages.Upload] = {}
        self.submissions: dict[str, Open] = {}
        self.keys: dict[str, Open] = {}
        self.seen: list[messages.Message] = []
        self.drained: set[str] = set()
        self.events: deque[messages.Event] = deque(maxlen=EVENTS_KEPT)
        self.port = 0
        self._queue: deque[str] = deque()
        self._running: dict[str, str] = {}
        self._ids = itertools.count(1)
        self._event_ids = itertools.count(1)
        self._subscribers: dict[aio.Connection, int] = {}
        self._waiters: list[tuple[set[str], asyncio.Event]] = []
        self._done_times: deque[float] = deque(maxlen=2000)
        self._began = time.monotonic()
        self._server: aio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # --- life ---------------------------------------------------------------------------

    def __enter__(self) -> FakeCore:
        self._thread.start()
        self.listen()
        self._in_loop(self._start_ticking)
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def reset(self) -> None:
        """Forget every job, and every turn of `behaviour`."""

        def reset() -> None:
            self.behaviour = Behaviour()
            self._remove(list(self.jobs))
            self.submissions.clear()
            self.keys.clear()
            self.drained.clear()
            self.seen.clear()

        self._in_loop(reset)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until a condition on this core's state holds, or fail."""
        deadline = time.monotonic() + timeout_s
        while not self._in_loop(condition):
            assert time.monotonic() < deadline, "the fake core never came to that"
            time.sleep(0.01)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Come (back), on the same port."""
        serving = aio.serve(
            self.address, self._on_peer, token=self.token, admit=lambda hello, _: _admit(hello)
        )
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(5)
        self.port = self._server.port

    def hang_up(self) -> None:
        """Go away, as a core that dies: connections end, the port is closed."""

        async def hang_up() -> None:
            assert self._server is not None
            for connection in list(self._server.connections):
                connection.abort("the fake core hangs up")
            self._server.close()
            await self._server.wait_closed()

        if self._server is not None and self._server.address:
            asyncio.run_coroutine_threadsafe(hang_up(), self._loop).result(5)
            self._server = None

    def _in_loop(self, call: Callable[[], T]) -> T:
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(call()))
        return done.result(5)

    # --- messages -------------------------------------------------------------------------

    def _on_peer(self, connection: aio.Connection) -> None:
        connection.on_message = self._on_message
        connection.on_closed = self._on_closed

    def _on_closed(self, connection: aio.Connection, *_: object) -> None:
        self._subscribers.pop(connection, None)

    def _on_message(self, connection: aio.Connection, message: messages.Message) -> None:
        name = type(message).__name__
        self.seen.append(message)
        if name in self.behaviour.silent:
            return
        request: int = message.request  # type: ignore[attr-defined]
        refused = self.behaviour.refuse.get(name)
        if refused is not None:
            connection.send(msgspec.structs.replace(refused, request=request))
            return
        if isinstance(message, messages.WaitJobs):
            waiting = self._loop.create_task(self._wait(connection, message))
            waiting.add_done_callback(lambda task: task.exception())
            return
        answer = getattr(self, f"_on_{name.lower()}")
        reply = answer(message, connection) if name == "Subscribe" else answer(message)
        if reply is not None:
            connection.send(reply)

    def _on_submit(self, message: messages.Submit) -> messages.Message:
        if message.key in self.keys and message.submission is None and message.last:
            return self._replay(message, self.keys[message.key or ""])
        waiting = len(self._queue) + len(message.images)
        if waiting > self.behaviour.queue_limit_jobs:
            return messages.Refused(
                request=message.request, code="queue_full",
                message=f"{waiting} jobs wait, the limit is {self.behaviour.queue_limit_jobs}",
                retry_after_s=1.0,
            )  # fmt: skip
        submission = self._submission_of(message)
        views = [self._accept(submission, image) for image in message.images]
        if message.last:
            if submission.key is not None:
                replayed = self.keys.get(submission.key)
                if replayed is not None:
                    self._remove(submission.jobs)
                    return self._replay(message, replayed)
                submission.digest = message.digest
                self.keys[submission.key] = submission
            self._queue.extend(submission.jobs)
            for job in submission.jobs:
                self._publish_job(job)
        return messages.Submitted(request=message.request, submission=submission.id, jobs=views)

    def _replay(self, message: messages.Submit, earlier: Open) -> messages.Message:
        if earlier.digest != message.digest:
            return messages.Refused(
                request=message.request, code="idempotency_mismatch", message="other images"
            )
        jobs = [self.jobs[job] for job in earlier.jobs if job in self.jobs]
        return messages.Submitted(
            request=message.request, submission=earlier.id, jobs=jobs, replayed=True
        )

    def _submission_of(self, message: messages.Submit) -> Open:
        if message.submission is not None:
            return self.submissions[message.submission]
        submission = Open(id=f"s{next(self._ids)}", submitted_at=_now(), key=message.key)
        self.submissions[submission.id] = submission
        return submission

    def _accept(self, submission: Open, image: messages.Upload) -> messages.JobView:
        view = messages.JobView(
            id=f"j{next(self._ids)}",
            submission=submission.id,
            name=image.name,
            state="queued",
            submitted_at=_now(),
            size_bytes=len(image.data),
            media_type=image.media_type,
        )
        self.jobs[view.id] = view
        self.images[view.id] = image
        submission.jobs.append(view.id)
        return view

    def _on_abandon(self, message: messages.Abandon) -> messages.Message:
        submission = self.submissions.pop(message.submission)
        self._remove(submission.jobs)
        return messages.Done(request=message.request, count=len(submission.jobs))

    def _on_getjobs(self, message: messages.GetJobs) -> messages.Message:
        return self._jobs_reply(message.request, message.jobs)

    def _on_listjobs(self, message: messages.ListJobs) -> messages.Message:
        below = int(message.cursor) if message.cursor else math.inf
        found = [
            job
            for job in sorted(self.jobs.values(), key=_number, reverse=True)
            if _number(job) < below
            and (not message.states or job.state in message.states)
            and message.submission in (None, job.submission)
        ]
        page = found[: message.limit]
        cursor = str(_number(page[-1])) if len(found) > len(page) else None
        return messages.Jobs(request=message.request, jobs=page, cursor=cursor)

    async def _wait(self, connection: aio.Connection, message: messages.WaitJobs) -> None:
        left = {job for job in message.jobs if not self._is_terminal(job)}
        if left:
            ended = asyncio.Event()
            entry = (left, ended)
            self._waiters.append(entry)
            try:
                await asyncio.wait_for(ended.wait(), message.timeout_s)
            except TimeoutError:
                pass
            finally:
                self._waiters.remove(entry)
        connection.send(self._jobs_reply(message.request, message.jobs))

    def _jobs_reply(self, request: int, ids: list[str]) -> messages.Jobs:
        jobs = [self.jobs[job] for job in ids if job in self.jobs]
        complete = all(job.state in TERMINAL for job in jobs)
        return messages.Jobs(request=request, jobs=jobs, complete=complete)

    def _on_getimage(self, message: messages.GetImage) -> messages.Message:
        image = self.images.get(message.job)
        if image is None:
            return messages.Refused(
                request=message.request, code="not_found", message=f"there is no {message.job}"
            )
        return messages.Image(
            request=message.request, name=image.name, media_type=image.media_type, data=image.data
        )

    def _on_canceljobs(self, message: messages.CancelJobs) -> messages.Message:
        ids = list(self.jobs) if message.jobs is None else message.jobs
        live = [job for job in ids if job in self.jobs and not self._is_terminal(job)]
        for job in live:
            self._finish(job, state="cancelled")
        return messages.Done(request=message.request, count=len(live))

    def _on_removejobs(self, message: messages.RemoveJobs) -> messages.Message:
        ids = list(self.jobs) if message.jobs is None else message.jobs
        return messages.Done(request=message.request, count=self._remove(ids))

    def _remove(self, ids: list[str]) -> int:
        gone = [job for job in ids if self.jobs.pop(job, None) is not None]
        for job in gone:
            self.images.pop(job, None)
            self._running.pop(job, None)
        if gone:
            self._publish("removed", {"jobs": gone})
        return len(gone)

    def _on_retryjobs(self, message: messages.RetryJobs) -> messages.Message:
        for job in message.jobs:
            if job not in self.jobs or self.jobs[job].state not in {"failed", "cancelled"}:
                return messages.Refused(
                    request=message.request, code="not_retryable", message=f"{job} isn't failed"
                )
        submission = Open(id=f"s{next(self._ids)}", submitted_at=_now())
        self.submissions[submission.id] = submission
        views = [self._accept(submission, self.images[job]) for job in message.jobs]
        self._queue.extend(submission.jobs)
        for view in views:
            self._publish_job(view.id)
        return messages.Submitted(request=message.request, submission=submission.id, jobs=views)

    def _on_getsubmission(self, message: messages.GetSubmission) -> messages.Message:
        submission = self.submissions.get(message.submission)
        if submission is None:
            return messages.Refused(
                request=message.request, code="not_found", message="no such submission"
            )
        counts: dict[str, int] = {}
        for job in submission.jobs:
            if job in self.jobs:
                counts[self.jobs[job].state] = counts.get(self.jobs[job].state, 0) + 1
        return messages.Submission(
            request=message.request,
            id=submission.id,
            submitted_at=submission.submitted_at,
            total=sum(counts.values()),
            counts=counts,
        )

    def _on_getworkers(self, message: messages.GetWorkers) -> messages.Message:
        return messages.Workers(request=message.request, workers=self._workers())

    def _on_drainworker(self, message: messages.DrainWorker) -> messages.Message:
        known = {worker.id for worker in self._workers()}
        self.drained |= {message.worker} & known
        return messages.Done(request=message.request, count=int(message.worker in known))

    def _on_getmodel(self, message: messages.GetModel) -> messages.Message:
        card = Card(
            id="squeezenet1_1-imagenet",
            architecture="squeezenet1_1",
            classes=list(LABELS),
            preprocessing=Preprocessing(resize_px=256, crop_px=224),
            sha256="0" * 64,
            size_bytes=2_500_000,
            accuracy={"imagenet100": 0.69},
        )
        return messages.ModelView(
            request=message.request,
            card=card,
            warning=self.behaviour.warning,
            ready_workers=self.behaviour.workers,
        )

    def _on_setmodel(self, message: messages.SetModel) -> messages.Message:
        if message.model != "squeezenet1_1":
            return messages.Refused(
                request=message.request, code="model_refused", message=f"no {message.model}"
            )
        return self._on_getmodel(messages.GetModel(request=message.request))

    def _on_getstats(self, message: messages.GetStats) -> messages.Message:
        return self._stats(message.request)

    def _on_getmetrics(self, message: messages.GetMetrics) -> messages.Message:
        text = f"# TYPE lookout_jobs gauge\nlookout_jobs {len(self.jobs)}\n"
        return messages.Metrics(request=message.request, text=text)

    def _on_subscribe(self, message: messages.Subscribe, connection: aio.Connection) -> None:
        self._subscribers[connection] = message.request
        if message.after is None:
            return
        if self.behaviour.forgetful:
            self._publish("reset", {})
            return
        missed = [event for event in self.events if _place(event.id) > _place(message.after)]
        if missed:
            connection.send(messages.Events(request=message.request, events=missed))

    # --- imaginary work --------------------------------------------------------------------

    def _start_ticking(self) -> None:
        self._loop.call_soon(self._tick)
        self._loop.call_soon(self._tick_slowly)

    def _tick(self) -> None:
        for number in range(self.behaviour.workers):
            worker = f"worker-{number + 1}"
            held = sum(1 for name in self._running.values() if name == worker)
            if worker not in self.drained:
                self._fill(worker, self.behaviour.slots - held)
        self._loop.call_later(0.005, self._tick)

    def _fill(self, worker: str, places: int) -> None:
        while places > 0 and self._queue:
            job = self._queue.popleft()
            if job not in self.jobs or self._is_terminal(job):
                continue
            places -= 1
            self._running[job] = worker
            self._change(job, state="leased", worker=worker, attempts=1, started_at=_now())
            delay_s = self.behaviour.job_s * self.behaviour.slots * random.uniform(0.7, 1.3)
            self._loop.call_later(delay_s, self._execute, job)

    def _execute(self, job: str) -> None:
        worker = self._running.pop(job, None)
        if worker is None or job not in self.jobs or self._is_terminal(job):
            return
        data = self.images[job].data
        if not data.startswith(MAGIC):
            fault = messages.Fault(code="not_an_image", message="the file isn't an image we know")
            self._finish(job, state="failed", error=fault)
            return
        self._finish(job, state="succeeded", top5=guess(data), timings_ms=_timings())

    def _finish(self, job: str, **changes: Any) -> None:
        self._done_times.append(time.monotonic())
        self._change(job, finished_at=_now(), **changes)
        for left, ended in self._waiters:
            left.discard(job)
            if not left:
                ended.set()

    def _change(self, job: str, **changes: Any) -> None:
        self.jobs[job] = msgspec.structs.replace(self.jobs[job], **changes)
        self._publish_job(job)

    def _is_terminal(self, job: str) -> bool:
        return job not in self.jobs or self.jobs[job].state in TERMINAL

    def _tick_slowly(self) -> None:
        stats = msgspec.to_builtins(self._stats(0))
        self._publish("stats", {k: v for k, v in stats.items() if k not in {"type", "request"}})
        for worker in self._workers():
            self._publish("worker", msgspec.structs.asdict(worker))
        self._loop.call_later(1.0, self._tick_slowly)

    def _publish_job(self, job: str) -> None:
        self._publish("job", self.jobs[job])

    def _publish(self, kind: str, value: Any) -> None:
        event = messages.Event(
            id=f"1-{next(self._event_ids)}", kind=kind, data=msgspec.json.encode(value)
        )
        self.events.append(event)
        for connection, request in self._subscribers.items():
            connection.send(messages.Events(request=request, events=[event]))

    # --- what it shows -----------------------------------------------------------------------

    def _workers(self) -> list[messages.WorkerView]:
        return [self._worker(number) for number in range(self.behaviour.workers)]

    def _worker(self, number: int) -> messages.WorkerView:
        name = f"worker-{number + 1}"
        held = sum(1 for worker in self._running.values() if worker == name)
        return messages.WorkerView(
            id=name,
            name=name,
            incarnation=f"{name}-1",
            address=f"10.0.0.{number + 11}:40512",
            liveness="alive",
            admission="draining" if name in self.drained else "accepting",
            ready=True,
            engine="torch cpu",
            model="squeezenet1_1-imagenet",
            software="lookout 0.1.0",
            slots=self.behaviour.slots,
            held=held,
            executing=min(held, 1),
            rate_per_s=self._rate() / max(1, self.behaviour.workers),
            completed=sum(1 for job in self.jobs.values() if job.worker == name),
            errored=0,
            stale=0,
            blamed_deaths=0,
            phi=0.3 + 0.2 * number,
            rtt_ms=0.4,
            connected_at=_now(),
        )

    def _rate(self) -> float:
        recent = time.monotonic() - 10
        return sum(1 for at in self._done_times if at > recent) / 10

    def _stats(self, request: int) -> messages.Stats:
        counts: dict[str, int] = {}
        for job in self.jobs.values():
            counts[job.state] = counts.get(job.state, 0) + 1
        return messages.Stats(
            request=request,
            counts=counts,
            queued_bytes=sum(len(self.images[job].data) for job in self._queue if job in self.jobs),
            queue_limit_jobs=self.behaviour.queue_limit_jobs,
            queue_limit_bytes=2**34,
            drain_rate_per_s=self._rate(),
            accept_rate_per_s=self._rate(),
            workers_ready=self.behaviour.workers,
            workers_alive=self.behaviour.workers,
            uptime_s=time.monotonic() - self._began,
            resident_bytes=50_000_000,
            counters={"accepted": len(self.jobs)},
            latency_ms={"p50": 42.0, "p99": 120.0},
        )


def guess(data: bytes) -> list[messages.Guess]:
    """The five best classes of an image: made up, but always the same."""
    rng = random.Random(hashlib.sha256(data).digest())
    picked = rng.sample(range(len(LABELS)), 5)
    weights = sorted((rng.random() ** 6 for _ in range(6)), reverse=True)
    total = sum(weights)
    return [
        messages.Guess(label=LABELS[index], class_id=index, confidence=weight / total)
        for index, weight in zip(picked, weights, strict=False)
    ]


def _admit(hello: messages.Hello) -> aio.Admission | messages.Reject:
    if hello.role == "worker":
        return messages.Reject(code="no_workers", reason="the fake core takes no workers")
    return aio.Admission(peer=hello.name)


def _timings() -> dict[str, float]:
    return {"queue": 12.0, "decode": 4.1, "infer": 18.2}


def _number(job: messages.JobView) -> int:
    return int(job.id[1:])


def _place(event_id: str) -> int:
    return int(event_id.partition("-")[2])


def _now() -> str:
    return (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        + f".{time.time_ns() // 10**6 % 1000:03d}Z"
    )


def main() -> None:
    """Serve the page in front of a fake core until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", default="127.0.0.1:8080")
    parser.add_argument("--job-s", type=float, default=0.2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    behaviour = Behaviour(job_s=options.job_s, workers=options.workers)
    with FakeCore(behaviour, token="") as core:
        command = [sys.executable, "-m", "webui", "--http", options.http, "--core", core.address]
        subprocess.run([*command, "--die-with-parent"], check=False)


if __name__ == "__main__":
    main()
