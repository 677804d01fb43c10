"""Every message of the protocol, as one typed struct each.

A message is a MessagePack map whose `type` is the struct's name. Unknown
fields are ignored (so that a minor version may add some); an unknown `type`,
a missing field or a wrong type is a peer's fault. Byte strings travel as
MessagePack `bin`. Times are durations in seconds, never points in time: the
clocks of two machines are not compared.

`wire/PROTOCOL.md` is the same in prose, for people who write a peer in
another language; a test holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from wire.card import Card, Sha256

VERSION = 1
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=16, max_length=64)]
Mac = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
INT_MAX = 2**63 - 1
"""What SQLite and most languages can count to; MessagePack could say twice that."""
Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
# `\Z` and not `$`, which would let a line feed through at the end.
JobId = Annotated[str, msgspec.Meta(pattern=r"^j[0-9]{1,18}\Z")]
SubmissionId = Annotated[str, msgspec.Meta(pattern=r"^s[0-9]{1,18}\Z")]
FencingToken = Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)]
# Upper bounds also keep NaN and infinity out: no comparison holds for NaN.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Timings = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=64)], Milliseconds], msgspec.Meta(max_length=32)
]
Role = Literal["worker", "web", "admin"]
ProtocolVersion = Annotated[int, msgspec.Meta(ge=1, le=65535)]
STREAMS_MAX = 64
"""Connections of one worker at once, whatever either end wishes."""
StreamCount = Annotated[int, msgspec.Meta(ge=1, le=STREAMS_MAX)]
StreamNumber = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
# No control characters: peers' names stand in logs, terminals and metrics.
PeerName = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")
]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    """Base of all messages; its name is what `type` says."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the maps inside messages; they carry no `type`."""


# --- handshake -------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True, omit_defaults=True):
    """First frame of a connection: who calls, in which versions.

    `name` is stable over restarts of one worker; `incarnation` is new for each
    process. `slots` is how many leases a worker wants at once (0 for others).
    `streams_max` above 1 says that a worker can use several connections at
    once; `stream` above 0 that this is a further one of a worker that has
    joined, in place of those in `replaces` (see PROTOCOL.md, Streams).
    """

    versions: Annotated[list[ProtocolVersion], msgspec.Meta(min_length=1, max_length=16)]
    role: Role
    name: PeerName
    incarnation: PeerName
    slots: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    software: Annotated[str, msgspec.Meta(max_length=128)] = ""
    streams_max: StreamCount = 1
    stream: StreamNumber = 0
    replaces: Annotated[list[StreamNumber], msgspec.Meta(max_length=STREAMS_MAX)] = []


class Challenge(Message, frozen=True, kw_only=True):
    """The master's answer: the version it chose and a nonce to prove the token over."""

    version: ProtocolVersion
    nonce: Nonce


class Proof(Message, frozen=True, kw_only=True, omit_defaults=True):
    """HMAC of the join token over both nonces (see `wire.handshake`).

    `stream_mac` proves, on a further stream, the ticket of the first one's `Welcome`.
    """

    nonce: Nonce
    mac: Mac
    stream_mac: Annotated[bytes, msgspec.Meta(max_length=32)] = b""


class Welcome(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Admission. `mac` proves that the master holds the token too.

    `peer` is the master's name for this connection's owner. `frame_bytes_max`
    is the largest payload that the master takes from it. `ticket` is the
    secret with which this worker may open up to `streams_max` streams.
    """

    mac: Mac
    peer: Name
    heartbeat_interval_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    lease_ttl_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)]
    frame_bytes_max: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
    ticket: Annotated[bytes, msgspec.Meta(max_length=64)] = b""
    streams_max: StreamCount = 1


class Reject(Message, frozen=True, kw_only=True):
    """Refused; `reason` is for a person, `code` for a program. The connection closes."""

    code: Name
    reason: Text


class ProtocolFault(Message, frozen=True, kw_only=True):
    """The other end broke the protocol; the sender closes after this frame."""

    code: Name
    reason: Text


# --- the model ----------------------------------------------------------------------------


class Model(Message, frozen=True, kw_only=True):
    """Master to worker: serve this model from now on. Sent after `Welcome` and on a swap."""

    card: Card


class FetchWeights(Message, frozen=True, kw_only=True):
    """Worker to master: a slice of the weights file, from `offset`."""

    sha256: Sha256
    offset: Count
    length: Annotated[int, msgspec.Meta(ge=1, le=16 * 2**20)]


class WeightsChunk(Message, frozen=True, kw_only=True):
    """One slice. `data` may be shorter than asked for at the end of the file."""

    sha256: Sha256
    offset: Count
    size_bytes: Count
    data: bytes


class Ready(Message, frozen=True, kw_only=True):
    """The worker holds the model, is warm, and takes work."""

    model: Name
    engine: Annotated[str, msgspec.Meta(max_length=128)]
    slots: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    warmup_ms: Milliseconds


class ModelFault(Message, frozen=True, kw_only=True):
    """The worker can't serve the model, and why. It stays joined and takes no work."""

    model: Name
    code: Name
    reason: Text


# --- work ------------------------------------------------------------------------------------


class LeaseRef(Part, frozen=True, kw_only=True):
    """One lease: a job and its fencing token."""

    job: JobId
    token: FencingToken


class Assign(Message, frozen=True, kw_only=True):
    """A lease and the image, as uploaded (compressed).

    `alone` asks the worker to execute it with nothing else in flight: the job
    was executing when an earlier worker died. `timeout_s` is what is left to
    the job's deadline, if it has one.
    """

    job: JobId
    token: FencingToken
    attempt: Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)]
    name: Text
    image: bytes
    alone: bool = False
    timeout_s: float | None = None


class Started(Message, frozen=True, kw_only=True):
    """Sent *before* decoding begins, so that a death blames only what was executing."""

    leases: Annotated[list[LeaseRef], msgspec.Meta(max_length=4096)]


class Guess(Part, frozen=True, kw_only=True):
    """One class with its softmax probability."""

    label: Annotated[str, msgspec.Meta(max_length=1024)]
    class_id: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Fault(Part, frozen=True, kw_only=True):
    """Why a job gave no answer. `retryable` is true for faults of the infrastructure."""

    code: Name
    message: Text
    retryable: bool = False


class Result(Message, frozen=True, kw_only=True):
    """The outcome of one lease: `top5` (best first) or `fault`, never both.

    `model` is the card's id that made it. `timings_ms` has `queue`, `decode`,
    `infer` and whatever else the worker measures. The worker keeps it until
    `Accepted` or `Stale` answers it, and sends it again after a reconnect.
    """

    job: JobId
    token: FencingToken
    model: Name
    top5: Annotated[list[Guess], msgspec.Meta(max_length=5)] = []
    fault: Fault | None = None
    timings_ms: Timings = {}


class Accepted(Message, frozen=True, kw_only=True):
    """The result is durable; the worker may forget it."""

    job: JobId
    token: FencingToken


class Stale(Message, frozen=True, kw_only=True):
    """The result came too late and was not taken; the worker forgets it."""

    job: JobId
    token: FencingToken
    reason: Text


class Cancel(Message, frozen=True, kw_only=True):
    """Master to worker: drop this lease if it hasn't begun; no answer is awaited."""

    job: JobId
    token: FencingToken
    reason: Text


class Released(Message, frozen=True, kw_only=True):
    """Worker to master: these leases were not begun and come back unharmed."""

    leases: Annotated[list[LeaseRef], msgspec.Meta(max_length=4096)]
    reason: Text


# --- liveness ------------------------------------------------------------------------------


class Heartbeat(Message, frozen=True, kw_only=True, omit_defaults=True):
    """From a thread that inference can't starve, every `heartbeat_interval_s`.

    `progress` rises whenever any stage finishes a step: a worker that beats
    while `executing` > 0 and `progress` stands still is stuck. The same beat
    goes over each stream; `heard` is the newest `HeartbeatAck` that came over
    this one, and so says that all that the master sent ahead of it is here.
    """

    seq: Count
    progress: Count
    held: Count
    executing: Count
    heard: Count | None = None


class HeartbeatAck(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Echo, so that the worker sees a dead master and measures the round trip.

    `streams` is how many the master would like open, by the loss it sees; 0: no opinion.
    """

    seq: Count
    streams: Annotated[int, msgspec.Meta(ge=0, le=STREAMS_MAX)] = 0


class Drain(Message, frozen=True, kw_only=True):
    """Master to worker: finish what is executing, give back the rest, then leave."""

    reason: Text


class Draining(Message, frozen=True, kw_only=True):
    """Worker to master: no new leases, please; I am leaving."""

    reason: Text


class Goodbye(Message, frozen=True, kw_only=True):
    """Last frame of a clean leave."""

    reason: Text


# --- web and admin to the core: requests carry `request`, answers echo it --------------------

Request = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
JobIds = Annotated[list[JobId], msgspec.Meta(max_length=100_000)]
Cursor = Annotated[str, msgspec.Meta(max_length=256)]
JobState = Literal["queued", "leased", "backoff", "succeeded", "failed", "cancelled"]


class JobView(Part, frozen=True, kw_only=True):
    """A job as the REST API shows it; times are RFC 3339 UTC strings."""

    id: str
    submission: str
    name: str
    state: JobState
    submitted_at: str
    started_at: str | None = None
    finished_at: str | None = None
    attempts: int = 0
    worker: str | None = None
    model: str | None = None
    size_bytes: int = 0
    media_type: str = ""
    top5: list[Guess] = []
    timings_ms: dict[str, float] = {}
    error: Fault | None = None


class Upload(Part, frozen=True, kw_only=True):
    """One image of a submission."""

    name: Text
    media_type: Annotated[str, msgspec.Meta(max_length=128)]
    data: bytes


class Submit(Message, frozen=True, kw_only=True):
    """Accept images. Answered by `Submitted` once all of this part is durable.

    A submission too large for one frame comes in parts: the first has
    `submission` None, later ones name it, the last has `last` true. Until the
    last part is durable the submission is open: nobody was told 2xx, and if
    the connection ends or `Abandon` comes, its jobs are cancelled.
    `key` is the client's `Idempotency-Key` (with the first part); `digest` a
    SHA-256 over the request (with the last part): a key seen before with the
    same digest is answered with the jobs of then and `replayed`, with another
    digest by `Refused` `idempotency_mismatch`. `digest` is hex.
    `timeout_s`, if given, sets each job's deadline from now.
    `patient` says that the sender answers nobody before the jobs have ended: while jobs
    wait for a worker, this part may wait for others and become durable with them.
    """

    request: Request
    images: Annotated[list[Upload], msgspec.Meta(max_length=10_000)]
    submission: SubmissionId | None = None
    last: bool = True
    key: Annotated[str, msgspec.Meta(max_length=255)] | None = None
    digest: Sha256 | None = None
    timeout_s: Seconds | None = None
    patient: bool = False


class Abandon(Message, frozen=True, kw_only=True):
    """Give up an open submission; its jobs are cancelled. Answered by `Done`."""

    request: Request
    submission: SubmissionId


class Submitted(Message, frozen=True, kw_only=True):
    """This part is durable. `jobs` are the jobs of the part (of all parts when replayed).

    For `gather_s`, patient parts and `WaitJobs` may be held back from now on, to be sent in
    one write: they would only wait here.
    """

    request: Request
    submission: SubmissionId
    jobs: list[JobView]
    replayed: bool = False
    gather_s: Seconds = 0.0


class GetJobs(Message, frozen=True, kw_only=True):
    """Read jobs by id, in the order asked; unknown ids are left out of `Jobs`."""

    request: Request
    jobs: Annotated[list[JobId], msgspec.Meta(max_length=10_000)]


class ListJobs(Message, frozen=True, kw_only=True):
    """A page of jobs, newest first. `cursor` comes from the page before."""

    request: Request
    states: Annotated[list[JobState], msgspec.Meta(max_length=6)] = []
    submission: SubmissionId | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    cursor: Cursor | None = None


class WaitJobs(Message, frozen=True, kw_only=True):
    """Answered by `Jobs` when all are terminal, or after `timeout_s` with what is known."""

    request: Request
    timeout_s: Annotated[float, msgspec.Meta(ge=0, le=3600)]
    jobs: Annotated[list[JobId], msgspec.Meta(max_length=10_000)]


class Jobs(Message, frozen=True, kw_only=True):
    """Jobs asked for; `cursor` is None on the last page; `complete`: all are terminal."""

    request: Request
    jobs: list[JobView]
    cursor: str | None = None
    complete: bool = False


class GetImage(Message, frozen=True, kw_only=True):
    """The image of a job, as uploaded. Answered by `Image`."""

    request: Request
    job: JobId


class Image(Message, frozen=True, kw_only=True):
    """The bytes of one upload."""

    request: Request
    name: str
    media_type: str
    data: bytes


class CancelJobs(Message, frozen=True, kw_only=True):
    """Cancel the jobs that are not terminal (all of them if `jobs` is None)."""

    request: Request
    jobs: JobIds | None = None


class RemoveJobs(Message, frozen=True, kw_only=True):
    """Cancel where needed, then delete jobs and images (all of them if `jobs` is None)."""

    request: Request
    jobs: JobIds | None = None


class RetryJobs(Message, frozen=True, kw_only=True):
    """Put `failed` or `cancelled` jobs in the queue again, with attempts from zero.

    A retried job is a new job with the same image: terminal states stay.
    Answered by `Submitted` with the new jobs, in a submission of their own.
    """

    request: Request
    jobs: Annotated[list[JobId], msgspec.Meta(min_length=1, max_length=1000)]


class Done(Message, frozen=True, kw_only=True):
    """The request was carried out on `count` jobs or workers."""

    request: Request
    count: Count


class GetSubmission(Message, frozen=True, kw_only=True):
    """Counts by state. Answered by `Submission`."""

    request: Request
    submission: SubmissionId


class Submission(Message, frozen=True, kw_only=True):
    """Progress of one submission: `counts` by job state, `total` jobs."""

    request: Request
    id: SubmissionId
    submitted_at: str
    total: Count
    counts: dict[str, int]


class GetWorkers(Message, frozen=True, kw_only=True):
    """The cluster. Answered by `Workers`."""

    request: Request


class WorkerView(Part, frozen=True, kw_only=True):
    """One worker as the API shows it. Rates are jobs per second, smoothed."""

    id: str
    name: str
    incarnation: str
    address: str
    liveness: Literal["alive", "suspect", "dead"]
    admission: Literal["accepting", "draining", "quarantined"]
    ready: bool
    engine: str
    model: str | None
    software: str
    slots: int
    held: int
    executing: int
    rate_per_s: float
    completed: int
    errored: int
    stale: int
    blamed_deaths: int
    phi: float
    rtt_ms: float | None
    connected_at: str
    fault: Fault | None = None
    streams: int = 1
    retransmitted: float | None = None


class Workers(Message, frozen=True, kw_only=True):
    """All workers known, connected first."""

    request: Request
    workers: list[WorkerView]


class DrainWorker(Message, frozen=True, kw_only=True):
    """Ask one worker to drain and leave. Answered by `Done`."""

    request: Request
    worker: Name


class GetModel(Message, frozen=True, kw_only=True):
    """What the cluster serves. Answered by `ModelView`."""

    request: Request


class ModelView(Message, frozen=True, kw_only=True):
    """The card in force; `warning` says, for instance, that it is the bundled one."""

    request: Request
    card: Card
    warning: str | None = None
    ready_workers: int = 0


class SetModel(Message, frozen=True, kw_only=True):
    """Serve another model from now on, without losing a job. Answered by `ModelView`.

    `model` and `weights` are what `master up --model --weights` takes. From a
    web process `weights` is the name of a file in the folder `models` of the
    data directory; from an admin any path on the master's machine.
    """

    request: Request
    model: Name | None = None
    weights: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)] | None = None


class GetStats(Message, frozen=True, kw_only=True):
    """Counters and gauges of the core. Answered by `Stats`."""

    request: Request


class Stats(Message, frozen=True, kw_only=True):
    """One snapshot. Rates are over the last 10 s.

    `storage_fault` says why the disk takes no writes, while it doesn't: uploads
    are refused then, and outcomes wait in memory.
    """

    request: Request
    counts: dict[str, int]
    queued_bytes: int
    queue_limit_jobs: int
    queue_limit_bytes: int
    drain_rate_per_s: float
    accept_rate_per_s: float
    workers_ready: int
    workers_alive: int
    uptime_s: float
    resident_bytes: int
    counters: dict[str, int]
    latency_ms: dict[str, float]
    draining: bool = False
    storage_fault: str | None = None


class GetMetrics(Message, frozen=True, kw_only=True):
    """Prometheus text. Answered by `Metrics`."""

    request: Request


class Metrics(Message, frozen=True, kw_only=True):
    """The exposition format, version 0.0.4."""

    request: Request
    text: str


class Subscribe(Message, frozen=True, kw_only=True):
    """Stream events on this connection from now on.

    `after` is the id of the last event seen: what the core still holds since
    then comes first, or one `reset` event when it holds too little.
    Answered by a stream of `Events` with the same `request`.
    """

    request: Request
    after: Cursor | None = None


class Event(Part, frozen=True, kw_only=True):
    """`kind` is `job`, `worker`, `stats`, `removed`, `model` or `reset`; `data` is JSON."""

    id: str
    kind: str
    data: bytes


class Events(Message, frozen=True, kw_only=True):
    """A batch of events, oldest first."""

    request: Request
    events: list[Event]


class Refused(Message, frozen=True, kw_only=True):
    """The request was not carried out. `retry_after_s` where trying again helps."""

    request: Request
    code: Name
    message: Text
    retry_after_s: float | None = None


class Shutdown(Message, frozen=True, kw_only=True):
    """Admin: drain and exit. Answered by `Done`."""

    request: Request
