"""The connection to the master, from dialling to its end.

Turns whatever happens into events, in order: `Welcomed`, messages,
`ConnectionLost`; or `JoinFailed`. Leaves to the agent when to try again, and
to `worker.bundle` that a connection may consist of several streams.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from wire import blocking
from wire import messages as m
from wire.address import Address
from wire.errors import EnvironmentFault, PeerFault, Rejected
from worker.bundle import Bundle
from worker.events import ConnectionLost, JoinFailed, Paused, Post, Welcomed
from worker.logs import event
from worker.vitals import Vitals

log = logging.getLogger("lookout.worker.link")
HOPELESS_CODES = frozenset({"bad_token", "version_unsupported", "master_unproved"})
"""Refusals that the same flags meet again. Others (a name still taken, a drain) may pass."""


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """Whom to call, as whom, and how long each wait may take.

    `streams` connections are kept open, or as many as the link needs (None).
    """

    master: Address
    token: str | None
    hello: m.Hello
    connect_timeout_s: float = 5.0
    handshake_timeout_s: float = 10.0
    send_timeout_s: float = 30.0
    streams: int | None = None


class Link:
    """At most one membership at a time. `post` takes events, `take_chunk` weights."""

    def __init__(
        self,
        config: LinkConfig,
        vitals: Vitals,
        post: Post,
        take_chunk: Callable[[m.WeightsChunk], None],
        lost: Callable[[], None],
    ) -> None:
        self._config = config
        self._vitals = vitals
        self._post = post
        self._take_chunk = take_chunk
        self._lost = lost
        self._bundle: Bundle | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def connect(self, after_s: float) -> None:
        """Call the master after a wait, on a thread of its own; an event tells the outcome."""
        self._thread = threading.Thread(target=self._run, args=(after_s,), name="link", daemon=True)
        self._thread.start()

    def send(self, *messages: m.Message) -> bool:
        """Send messages in one write; False if there is no connection (any more)."""
        bundle = self._bundle
        return bundle is not None and bundle.send(*messages)

    def close(self, linger_s: float) -> None:
        """End the connection, giving the master `linger_s` to close it first.

        A socket closed with unread bytes in it answers with a reset, which can
        overtake what was sent last.
        """
        self._closed.set()
        if self._thread is not None and self._bundle is not None:
            self._thread.join(linger_s)
        bundle = self._bundle
        if bundle is not None:
            bundle.close("this worker leaves")

    # --- on the thread -------------------------------------------------------------------

    def _run(self, after_s: float) -> None:
        if self._closed.wait(after_s):
            return
        try:
            connection = self._dial(self._config.hello)
        except (EnvironmentFault, PeerFault) as fault:
            self._post(self._explain(fault))
            return
        reason = self._serve(connection)
        self._lost()
        self._post(ConnectionLost(reason))

    def _dial(self, hello: m.Hello, ticket: bytes = b"") -> blocking.BlockingConnection:
        config = self._config
        return blocking.connect(
            config.master,
            config.token,
            hello,
            connect_timeout_s=config.connect_timeout_s,
            handshake_timeout_s=config.handshake_timeout_s,
            send_timeout_s=config.send_timeout_s,
            ticket=ticket,
        )

    def _serve(self, connection: blocking.BlockingConnection) -> str:
        """Pass on what comes until the end; return why it came."""
        welcome = connection.welcome
        event(
            log,
            logging.INFO,
            "joined",
            master=connection.address,
            peer=welcome.peer,
            heartbeat_interval_s=welcome.heartbeat_interval_s,
            lease_ttl_s=welcome.lease_ttl_s,
            streams_max=min(self._config.hello.streams_max, welcome.streams_max),
            **connection.socket_options,
        )
        hello, streams = self._config.hello, self._config.streams
        bundle = Bundle(connection, hello, streams, self._dial, self._pass_on)
        self._bundle = bundle
        try:
            self._post(Welcomed(welcome.peer, welcome.lease_ttl_s))
            if self._closed.is_set():
                bundle.close("this worker leaves")
            return bundle.run(self._vitals, self._paused)
        finally:
            self._bundle = None

    def _pass_on(self, message: m.Message) -> None:
        if isinstance(message, m.WeightsChunk):
            self._take_chunk(message)
        else:
            self._post(message)

    def _paused(self, gap_s: float) -> None:
        event(log, logging.WARNING, "stood_still", gap_s=round(gap_s, 3))
        self._post(Paused(gap_s))

    def _explain(self, fault: EnvironmentFault | PeerFault) -> JoinFailed:
        if isinstance(fault, Rejected):
            return JoinFailed(fault.code, fault.reason, fault.code in HOPELESS_CODES)
        if isinstance(fault, PeerFault):
            reason = f"{self._config.master} answers, but not as a Lookout master: {fault.reason}"
            return JoinFailed(fault.code, reason, fault.code != "handshake_timeout")
        return JoinFailed(fault.code, fault.reason, _is_unknown_host(fault))


def _is_unknown_host(fault: EnvironmentFault) -> bool:
    cause = fault.__cause__
    return isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
