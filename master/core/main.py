"""The core process: open the store, listen, serve until told to stop."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import sys
from dataclasses import dataclass

import uvloop

from master.config import CoreConfig
from master.core.clients import ClientSession
from master.core.service import Core
from master.core.workers import WorkerSession
from master.logs import fields
from master.models.resolve import Resolved
from master.states import Liveness
from master.store import open_store
from master.store.base import JobStore
from wire.aio import Admission, Connection, Server, serve
from wire.errors import PeerFault
from wire.handshake import TICKET_BYTES
from wire.messages import Hello, Message, Reject, Role
from wire.process import take_short_turns, tune
from wire.streams import STREAMS_PER_WORKER_MAX

log = logging.getLogger("lookout.core")

EXIT_FORCED = 1
WORKERS: frozenset[Role] = frozenset({"worker"})
CLIENTS: frozenset[Role] = frozenset({"web", "admin"})


@dataclass(eq=False)
class Door:
    """One listening side and who may come in there.

    Workers have a door of their own: a machine that holds the join token may
    bring work to an end, but not change the model or stop the master.
    """

    core: Core
    roles: frozenset[Role]

    def admit(self, hello: Hello, address: str) -> Admission | Reject:
        """Decide about a client that proved the token."""
        if hello.role not in self.roles:
            here = " and ".join(sorted(self.roles))
            reason = f"{hello.role} connections are not taken here, only {here}"
            return Reject(code="wrong_door", reason=reason)
        if hello.role == "worker":
            return self._admit_stream(hello) if hello.stream else self._admit_worker(hello)
        return self._admission(hello)

    def _admission(self, hello: Hello, ticket: bytes = b"") -> Admission:
        config = self.core.config
        return Admission(
            peer=hello.name,
            heartbeat_interval_s=config.heartbeat_interval_s,
            lease_ttl_s=config.lease_ttl_s,
            ticket=ticket,
            streams_max=STREAMS_PER_WORKER_MAX if ticket else 1,
        )

    def _admit_worker(self, hello: Hello) -> Admission | Reject:
        capable = hello.streams_max > 1
        ticket = secrets.token_bytes(TICKET_BYTES) if capable else b""
        return self._name_taken(hello) or self._admission(hello, ticket)

    def _admit_stream(self, hello: Hello) -> Admission | Reject:
        """A further connection of a worker that is here; the handshake checks its ticket."""
        session = self._session_of(hello)
        if session is None:
            reason = f"no worker {hello.name!r} of this incarnation is here any more; join anew"
            return Reject(code="session_unknown", reason=reason)
        if session.streams.full():
            reason = f"{len(session.streams)} streams of {hello.name!r} are open; close one first"
            return Reject(code="too_many_streams", reason=reason)
        return self._admission(hello, session.ticket)

    def _session_of(self, hello: Hello) -> WorkerSession | None:
        for session in self.core.roster.named(hello.name):
            if session.incarnation == hello.incarnation:
                return session
        return None

    def _name_taken(self, hello: Hello) -> Reject | None:
        """A living worker keeps its name; a silent one is replaced by whoever brings it."""
        core = self.core
        for session in core.roster.named(hello.name):
            stats = core.scheduler.worker_stats(session.key, core.clock.now())
            same = session.incarnation == hello.incarnation
            if not same and stats.liveness is Liveness.ALIVE:
                reason = (
                    f"a worker named {hello.name!r} is already here, from {session.address}; "
                    "choose another name with --name"
                )
                return Reject(code="name_taken", reason=reason)
        return None

    def opened(self, connection: Connection) -> None:
        """A peer passed the handshake."""
        if connection.hello.role == "worker":
            self._worker(connection)
        else:
            self._client(connection)

    def _worker(self, connection: Connection) -> None:
        session: WorkerSession | None
        if connection.hello.stream:
            session = self._session_of(connection.hello)
            assert session is not None, "admitted a moment ago"
            session.stream_joined(connection)
        else:
            session = self.core.worker_joined(connection)

        def closed(connection: Connection, reason: str, fault: PeerFault | None) -> None:
            if not session.stream_left(connection, reason):
                self.core.worker_left(session, reason)

        connection.on_message, connection.on_closed = session.receive, closed

    def _client(self, connection: Connection) -> None:
        session: ClientSession = self.core.client_joined(connection)
        who = {"role": connection.hello.role, "address": connection.address}
        log.info(**fields("client_joined", **who))

        def message(_: Connection, message: Message) -> None:
            session.receive(message)

        def closed(_: Connection, reason: str, fault: PeerFault | None) -> None:
            log.info(**fields("client_left", reason=reason, **who))
            session.closed()

        connection.on_message, connection.on_closed = message, closed


def run_core(config: CoreConfig, store: JobStore, model: Resolved) -> int:
    """Serve until SIGINT or SIGTERM; a second signal forces the end. The exit status."""
    return uvloop.run(_serve(config, store, model))


def claim_store(config: CoreConfig) -> JobStore:
    """Open the data directory; raises `EnvironmentFault` if another master has it."""
    return open_store(config.data_dir)


async def _serve(config: CoreConfig, store: JobStore, model: Resolved) -> int:
    # The store's writer asks for the interpreter a dozen times per group commit. With the
    # default of 5 ms a busy loop made it wait: 1,807 jobs/s against 3,580, 1 kB, 256 at once.
    take_short_turns()
    tune()
    core = Core(config, store, model)
    _handle_signals(core)
    await core.start()
    servers: list[Server] = []
    try:
        for address, roles in ((config.listen, WORKERS), (config.web_address, CLIENTS)):
            door = Door(core, roles)
            servers.append(await serve(address, door.opened, token=config.token, admit=door.admit))
        _announce(servers, model)
        await core.stopping.wait()
    finally:
        for server in servers:
            server.close("the master is shutting down")
        for server in servers:
            await server.wait_closed()
        await core.close()
    log.info(**fields("stopped"))
    return 0


def _announce(servers: list[Server], model: Resolved) -> None:
    ready = {
        "listen": str(servers[0].address),
        "web": str(servers[1].address),
        "pid": os.getpid(),
    }
    log.info(**fields("serving", model=model.card.id, source=model.source, **ready))
    sys.stdout.write(f"LOOKOUT core {json.dumps(ready)}\n")
    sys.stdout.flush()


def _handle_signals(core: Core) -> None:
    def asked(name: str) -> None:
        if core.draining is not None:
            log.warning(**fields("forced", signal=name))
            # Everything accepted is durable already; leases are given again at the next start.
            os._exit(EXIT_FORCED)
        core.shut_down(name)

    for number in (signal.SIGINT, signal.SIGTERM):
        core.loop.add_signal_handler(number, asked, number.name)
