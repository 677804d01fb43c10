"""The worker process: feeds events to the agent and carries out its effects.

Owns the threads' meeting point: one queue of events, read by the thread that
calls `run`, which alone touches the agent. Leaves decisions to `worker.agent`,
sockets to `worker.link`, work to `worker.pipeline`.

Why the process may execute itself anew: a thread can't be killed, so a decoder
that never returns would keep its core and its memory for ever, and so would a
device context that is broken. The agent then gives back what is not begun,
finishes and delivers what is, and asks for `Exit(restart=True)`; the command
line replaces the process by a fresh one with the same arguments.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import signal
import threading
import time
from types import FrameType
from typing import Protocol

from wire import messages as m
from wire.card import Card
from wire.streams import STREAMS_AUTO_MAX
from worker import child
from worker import events as e
from worker.agent import Agent, AgentConfig
from worker.config import WorkerConfig
from worker.faults import NULL_ENGINE, NullPipeline
from worker.fetch import Fetcher
from worker.link import Link, LinkConfig
from worker.loader import Loader
from worker.logs import event
from worker.pipeline import Pipeline, PipelineConfig
from worker.selection import Selection, SelectionConfig
from worker.vitals import Vitals
from worker.weights import WeightsCache

log = logging.getLogger("lookout.worker")
INBOUND_MAX = 4096
"""Messages of the master that may wait for the agent; beyond it the socket isn't read."""
EVENTS_AT_ONCE = 64
LINGER_S = 1.0
SIGNAL_LAG_S_MAX = 0.25
"""A signal between the interpreter's last look and its wait wakes nobody; this bounds the wait."""
_NAMES: dict[type, str] = {
    e.Unwell: "unwell",
    e.DrainAsked: "drain_asked",
    m.Drain: "drain_asked_by_master",
    m.Assign: "assigned",
    m.Cancel: "cancelled",
}


class Backend(Protocol):
    """What turns leases into results, and cards into models."""

    def start(self) -> None: ...

    def load(self, card: Card) -> None: ...

    def serve(self, card: Card) -> None: ...

    def submit(self, lease: e.Lease) -> None: ...

    def close(self) -> bool: ...


class Service:
    """One worker, from `run` to `Exit`."""

    def __init__(self, config: WorkerConfig, name: str, incarnation: str, software: str) -> None:
        self._events: queue.SimpleQueue[e.Event] = queue.SimpleQueue()
        self._inbound = threading.BoundedSemaphore(INBOUND_MAX)
        self._vitals = Vitals()
        self._signals = 0
        self._agent = Agent(_agent_config(config), random.SystemRandom())
        hello = m.Hello(
            versions=[m.VERSION],
            role="worker",
            name=name,
            incarnation=incarnation,
            slots=config.slots,
            software=software,
            streams_max=config.streams or STREAMS_AUTO_MAX,
        )
        link_config = LinkConfig(config.master, config.token, hello, streams=config.streams)
        self._fetcher = Fetcher(self._send)
        self._link = Link(
            link_config, self._vitals, self._take, self._fetcher.received, self._fetcher.give_up
        )
        self._backend = _backend(config, self._fetcher, self._vitals, self._events.put)

    def run(self) -> e.Exit:
        """Join, work and leave; returns how the process shall end."""
        self._backend.start()
        effects = self._agent.start()
        while (end := self._carry_out(effects)) is None:
            effects = [effect for item in self._next_events() for effect in self._handle(item)]
        return end

    def drain(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM or SIGINT: the first drains, the second ends the process at once."""
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + number)
        # SimpleQueue.put may be called from a signal handler, whatever was interrupted.
        self._events.put(e.DrainAsked(f"{signal.Signals(number).name} received"))

    # --- events in -----------------------------------------------------------------------

    def _take(self, item: e.Event) -> None:
        """Called by the link; blocks while too much waits, and so stops reading the socket."""
        if isinstance(item, m.Message):
            self._inbound.acquire()
        self._events.put(item)

    def _next_events(self) -> list[e.Event]:
        """Wait for one event, then take what else is there; `Tick` if none comes in time."""
        deadline_s = self._agent.next_deadline()
        left_s = SIGNAL_LAG_S_MAX
        if deadline_s is not None:
            left_s = min(left_s, max(0.0, deadline_s - time.monotonic()))
        try:
            events = [self._events.get(timeout=left_s)]
        except queue.Empty:
            return [e.Tick()]
        with contextlib.suppress(queue.Empty):
            while len(events) < EVENTS_AT_ONCE:
                events.append(self._events.get_nowait())
        return events

    def _handle(self, item: e.Event) -> list[e.Effect]:
        if isinstance(item, m.Message):
            self._inbound.release()
        before = self._agent.phase
        effects = self._agent.handle(item, time.monotonic())
        self._vitals.set_leases(self._agent.held, self._agent.executing)
        _log_event(item)
        if self._agent.phase is not before:
            change = f"{before.value}→{self._agent.phase.value}"
            event(log, logging.INFO, "phase", change=change, by=type(item).__name__)
        return effects

    # --- effects out ---------------------------------------------------------------------

    def _carry_out(self, effects: list[e.Effect]) -> e.Exit | None:
        said: list[m.Message] = []
        begun: list[e.Lease] = []
        for effect in effects:
            match effect:
                case e.Send(message):
                    said.append(message)
                case e.Begin(leases):
                    begun += leases
                    _announce(said, leases)
                case _:
                    self._say(said, begun)
                    said, begun = [], []
                    if isinstance(effect, e.Exit):
                        self._shut_down(effect)
                        return effect
                    self._carry_out_other(effect)
        self._say(said, begun)
        return None

    def _carry_out_other(self, effect: e.Effect) -> None:
        match effect:
            case e.Load(card):
                event(log, logging.INFO, "model_wanted", model=card.id, sha256=card.sha256[:12])
                self._backend.load(card)
            case e.Serve(card):
                self._backend.serve(card)
            case e.Connect(after_s):
                self._link.connect(after_s)

    def _send(self, message: m.Message) -> bool:
        return self._link.send(message)

    def _say(self, said: list[m.Message], begun: list[e.Lease]) -> None:
        """Send what one turn brought in one write, then begin what it announces.

        Mostly a result and the start of the next job: two writes would wake the master twice.
        """
        sent = not said or self._link.send(*said)
        if not begun:
            return
        if not sent:
            self._events.put(e.NotBegun(tuple(lease.assign.job for lease in begun)))
            return
        self._vitals.advance()
        for lease in begun:
            self._backend.submit(lease)

    def _shut_down(self, end: e.Exit) -> None:
        event(
            log, logging.INFO, "exit", code=end.code, reason=end.reason, restart=end.restart or None
        )
        self._link.close(LINGER_S)
        self._backend.close()


class _RealBackend:
    """The loader and the pipeline, with an engine between them."""

    def __init__(self, loader: Loader, pipeline: Pipeline) -> None:
        self._loader = loader
        self._pipeline = pipeline

    def start(self) -> None:
        self._loader.start()
        self._pipeline.start()

    def load(self, card: Card) -> None:
        self._loader.want(card)

    def serve(self, card: Card) -> None:
        self._pipeline.serve(self._loader.take(card))

    def submit(self, lease: e.Lease) -> None:
        self._pipeline.submit(lease)

    def close(self) -> bool:
        child.end_all()
        return self._pipeline.close()


def _backend(config: WorkerConfig, fetcher: Fetcher, vitals: Vitals, post: e.Post) -> Backend:
    if config.engine == NULL_ENGINE:
        return NullPipeline(post, vitals, config.faults.delay_ms)
    selection = SelectionConfig(
        config.engine,
        config.precision,
        config.threads,
        config.batch_max,
        config.cache,
        config.samples,
    )
    loader = Loader(
        WeightsCache(config.cache / "weights"),
        fetcher,
        Selection(selection).prepare,
        post,
        exact=config.exact,
    )
    pipeline_config = PipelineConfig(
        config.decode_threads, config.executing_max, config.limits, config.batch_wait_s
    )
    return _RealBackend(loader, Pipeline(pipeline_config, config.faults, vitals, post))


def _agent_config(config: WorkerConfig) -> AgentConfig:
    return AgentConfig(
        slots=config.slots,
        executing_max=config.executing_max,
        drain_timeout_s=config.drain_timeout_s,
    )


def _announce(said: list[m.Message], leases: tuple[e.Lease, ...]) -> None:
    """Neighbouring `Begin`s cost one `Started`."""
    refs = [lease.ref for lease in leases]
    if said and isinstance(last := said[-1], m.Started):
        said[-1] = m.Started(leases=[*last.leases, *refs])
    else:
        said.append(m.Started(leases=refs))


def _log_event(item: e.Event) -> None:
    match item:
        case e.JoinFailed():
            event(log, logging.WARNING, "join_failed", code=item.code, reason=item.reason)
        case e.ConnectionLost():
            event(log, logging.WARNING, "connection_lost", reason=item.reason)
        case e.ModelFailed():
            event(
                log,
                logging.ERROR,
                "model_failed",
                model=item.card.id,
                code=item.code,
                reason=item.reason,
            )
        case e.Unwell() | e.DrainAsked() | m.Drain():
            name = _NAMES[type(item)]
            event(log, logging.WARNING, name, reason=item.reason)
        case e.Finished():
            _log_result(item.result)
        case m.Stale():
            event(log, logging.INFO, "stale", job=item.job, token=item.token, reason=item.reason)
        case m.Assign() | m.Cancel():
            event(log, logging.DEBUG, _NAMES[type(item)], job=item.job, token=item.token)


def _log_result(result: m.Result) -> None:
    if result.fault is None:
        best = result.top5[0].label
        event(log, logging.DEBUG, "classified", job=result.job, token=result.token, label=best)
    else:
        event(
            log,
            logging.INFO,
            "not_classified",
            job=result.job,
            token=result.token,
            code=result.fault.code,
            reason=result.fault.message,
        )
