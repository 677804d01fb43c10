"""One joined worker: its messages become events for the scheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from master.core.names import job_number
from master.core.streams import Streams
from master.logs import fields
from master.scheduler.effects import Grant
from master.scheduler.events import (
    AttemptStarted,
    Event,
    HeartbeatSeen,
    LeaseReleased,
    ResultArrived,
    WorkerDraining,
    WorkerReady,
    WorkerUnready,
)
from wire.aio import Connection
from wire.messages import (
    Draining,
    Fault,
    FetchWeights,
    Goodbye,
    Heartbeat,
    Message,
    ModelFault,
    Ready,
    Released,
    Result,
    Started,
)

log = logging.getLogger("lookout.core")


class WorkerHost(Protocol):
    """What a worker's session needs of the core."""

    def feed(self, event: Event) -> None:
        """Hand an event to the scheduler and carry out what it says."""

    def result(self, session: WorkerSession, result: Result) -> None:
        """Take a result in: content, decision, answer."""

    def fetch_weights(self, session: WorkerSession, request: FetchWeights) -> None:
        """Answer with a slice of the weights file."""

    def worker_changed(self, session: WorkerSession) -> None:
        """Something that people see of the worker changed."""

    def model_id(self) -> str:
        """The id of the card in force."""

    def now(self) -> float:
        """The core's clock, monotonic seconds."""

    def send_again(self, grant: Grant) -> None:
        """The `Assign` of this grant may not have arrived: send it again if the lease lives."""


class WorkerSession:
    """State of one worker's connection that only people and the shell need.

    `key` names the connection for the scheduler: a worker that comes back is
    new to it. Its `name` is what people see.
    """

    def __init__(self, key: str, connection: Connection, host: WorkerHost, wall: float) -> None:
        self.key = key
        self.name = connection.hello.name
        self.incarnation = connection.hello.incarnation
        self.software = connection.hello.software
        self.address = connection.address
        self.connected_at = wall
        self.engine = ""
        self.model: str | None = None
        self.fault: Fault | None = None
        self.clean = False
        self.ticket = connection.welcome.ticket
        self.streams = Streams(connection, host.now())
        self._host = host

    def send(self, message: Message, grant: Grant | None = None) -> None:
        """Queue one message; `grant` is what an `Assign` carries out."""
        self.streams.send(message, self._host.now(), grant)

    def drop(self, reason: str) -> None:
        """Close every connection."""
        for connection in self.streams.connections():
            connection.close(reason)

    def rtt_ms(self) -> float | None:
        """The kernel's smoothed round trip."""
        return self.streams.rtt_ms()

    def retransmitted(self) -> float | None:
        """The part of the segments sent to it lately that had to be sent again."""
        share = self.streams.share
        return None if share is None else round(share, 4)

    def stream_joined(self, connection: Connection) -> None:
        """One more connection of this worker, perhaps in place of others."""
        replaced = self.streams.add(connection, self._host.now())
        log.info(
            **fields(
                "stream_joined",
                worker=self.name,
                stream=connection.hello.stream,
                streams=len(self.streams),
                replaces=connection.hello.replaces,
            )
        )
        for older in replaced:
            older.abort("the worker opened another stream in its place")

    def stream_left(self, connection: Connection, reason: str) -> bool:
        """One connection has ended; false if it was the last."""
        left = self.streams.remove(connection)
        if not len(self.streams):
            return False
        stream = connection.hello.stream
        log.info(**fields("stream_left", worker=self.name, stream=stream, reason=reason))
        for item in left:
            if isinstance(item, Grant):
                self._host.send_again(item)
            else:
                self.send(item)
        return True

    def receive(self, connection: Connection, message: Message) -> None:
        """Handle one message of the worker."""
        if type(message) is Heartbeat:
            self._heartbeat(connection, message)
            return
        handler = _HANDLERS.get(type(message))
        if handler is None:
            log.warning(**fields("message_ignored", worker=self.name, type=type(message).__name__))
            return
        handler(self, message)

    def _heartbeat(self, connection: Connection, beat: Heartbeat) -> None:
        if self.streams.beat(connection, beat, self._host.now()):
            self._host.feed(HeartbeatSeen(self.key, beat.progress, beat.held, beat.executing))

    def _ready(self, message: Ready) -> None:
        if message.model != self._host.model_id():
            # It warmed up a model that was replaced meanwhile; the new one is on its way.
            return
        self.engine, self.model, self.fault = message.engine, message.model, None
        log.info(
            **fields(
                "worker_ready",
                worker=self.name,
                model=message.model,
                engine=message.engine,
                slots=message.slots,
                warmup_ms=message.warmup_ms,
            )
        )
        self._host.feed(WorkerReady(self.key, message.slots, message.model))
        self._host.worker_changed(self)

    def _model_fault(self, message: ModelFault) -> None:
        self.fault = Fault(code=message.code, message=message.reason)
        log.error(
            **fields(
                "worker_model_fault", worker=self.name, code=message.code, reason=message.reason
            )
        )
        self._host.feed(WorkerUnready(self.key))
        self._host.worker_changed(self)

    def _started(self, message: Started) -> None:
        for lease in message.leases:
            self._host.feed(AttemptStarted(self.key, job_number(lease.job), lease.token))

    def _released(self, message: Released) -> None:
        for lease in message.leases:
            self._host.feed(LeaseReleased(self.key, job_number(lease.job), lease.token))

    def _result(self, message: Result) -> None:
        self._host.result(self, message)

    def _fetch(self, message: FetchWeights) -> None:
        self._host.fetch_weights(self, message)

    def _draining(self, message: Draining) -> None:
        log.info(**fields("worker_draining", worker=self.name, reason=message.reason))
        self._host.feed(WorkerDraining(self.key))
        self._host.worker_changed(self)

    def _goodbye(self, message: Goodbye) -> None:
        self.clean = True
        self.drop(message.reason)


def result_event(worker: str, result: Result) -> ResultArrived:
    """The scheduler's view of a result; its content stays in the journal."""
    fault = result.fault
    return ResultArrived(
        worker=worker,
        job=job_number(result.job),
        token=result.token,
        model=result.model,
        fault_code=fault.code if fault else None,
        fault_message=fault.message if fault else "",
        retryable=fault.retryable if fault else False,
    )


_HANDLERS: dict[type[Message], Callable[..., None]] = {
    Ready: WorkerSession._ready,
    ModelFault: WorkerSession._model_fault,
    Started: WorkerSession._started,
    Released: WorkerSession._released,
    Result: WorkerSession._result,
    FetchWeights: WorkerSession._fetch,
    Draining: WorkerSession._draining,
    Goodbye: WorkerSession._goodbye,
}
