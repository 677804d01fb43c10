"""Bind, then serve with granian in processes of their own.

The parent binds the socket (so port 0 works and the real port is known before
any worker runs), starts the processes, starts dead ones again, and stops them
on SIGTERM. Granian owns HTTP; what it lets us do with slow clients and why it
was chosen is measured in `tests/bench/http_fronts.py` and told in
`docs/api.md`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import granian._granian
import msgspec
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from webui import logs
from webui.config import Config
from webui.core import Core
from webui.gateway import Gateway
from wire import aio, messages
from wire.address import TcpAddress
from wire.aio import Connection
from wire.errors import EnvironmentFault
from wire.options import apply_options
from wire.process import tune

BACKLOG = 1024
# Of the open files: what isn't a visitor's connection (the core, downloads, threads, libraries).
FILES_KEPT = 256
ADDRESS_UNUSABLE = "address_unusable"
HEADER_READ_TIMEOUT_MS = 10_000
PR_SET_PDEATHSIG = 1


class Server(MPServer):
    """Granian on a socket that is bound already."""

    _ssp: Any
    _shd: Any
    _sfd: Any
    _sso: Any

    def __init__(self, bound: socket.socket, on_listening: Callable[[], None], **options: Any):
        super().__init__("webui.gateway", interface=Interfaces.ASGI, **options)
        self._bound = bound
        self._on_listening = on_listening

    def _init_shared_socket(self) -> None:
        # On Linux granian lets every worker bind by itself, which can't do port 0.
        # This is the path that it takes on other systems: one socket, inherited.
        self._ssp = None
        holder: Any = granian._granian.SocketHolder  # its stub lacks the constructor
        self._shd = holder(self._bound.fileno(), False, BACKLOG)
        self._sfd = self._bound.fileno()
        self._sso = self._bound

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        spawn: Any = super()._spawn_workers
        spawn(spawn_target, target_loader)
        self._on_listening()


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        EnvironmentFault: the address can't be bound.
    """
    logs.configure(config.log_format, config.log_level)
    if config.die_with_parent:
        die_with_parent(os.getppid())
    files = raise_file_limit()
    bound = bind(config.host, config.port)
    server = Server(
        bound,
        partial(announce, bound),
        workers=config.processes,
        workers_kill_timeout=round(config.drain_s) + 2,
        respawn_failed_workers=True,
        backlog=BACKLOG,
        # Not told, granian takes as many connections as the backlog, and those past it wait
        # unheard: a thousand idle listeners and slow senders would stop every upload.
        backpressure=connections(config.limits.connections, files),
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_READ_TIMEOUT_MS),
        websockets=False,
        log_enabled=False,
    )
    server.serve(target_loader=partial(load, config, os.getpid()), wrap_loader=False)


def load(config: Config, parent: int) -> Gateway:
    """Build the application, in the process that serves it."""
    logs.configure(config.log_format, config.log_level)
    limits = config.limits
    core = Core(
        partial(connect, config),
        patience_s=limits.core_patience_s,
        calls_max=limits.calls_in_flight,
    )
    # Not before granian has set its signal handlers: a SIGTERM that comes while the
    # handler inherited from the parent is in force would be lost.
    gateway = Gateway(config, core, on_start=partial(die_with_parent, parent))
    tune()
    return gateway


async def connect(config: Config) -> Connection:
    """Open a connection to the core as a web process."""
    hello = messages.Hello(
        versions=[messages.VERSION],
        role="web",
        name=f"web-{socket.gethostname()[:64]}-{os.getpid()}",
        incarnation=uuid.uuid4().hex,
        software="lookout-web",
    )
    return await aio.connect(config.core, config.token, hello)


def raise_file_limit() -> int:
    """Take as many open files as the system lets us (each event stream is one); say how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def connections(wanted: int, files: int) -> int:
    """Return how many connections a process takes: the bound, or what its open files allow."""
    return max(1, min(wanted, files - FILES_KEPT))


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen.

    Raises:
        EnvironmentFault: with what to do instead.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit them: an answer on a bad link is repeated as soon as a job is.
        apply_options(bound, hasty=True)
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as fault:
        bound.close()
        raise EnvironmentFault(ADDRESS_UNUSABLE, _bind_advice(host, port, fault)) from fault
    bound.set_inheritable(True)
    return bound


def _bind_advice(host: str, port: int, fault: OSError) -> str:
    where = f"can't listen on {host}:{port}: {fault.strerror}"
    if isinstance(fault, PermissionError):
        return (
            f"{where}; ports below 1024 need root or CAP_NET_BIND_SERVICE: try --http {host}:8080"
        )
    return f"{where}; is another server running there? Give another --http HOST:PORT"


def announce(bound: socket.socket) -> None:
    """Print the one line by which whoever started this process learns the address."""
    host, port = bound.getsockname()[:2]
    line = {"http": str(TcpAddress(host, port)), "pid": os.getpid()}
    sys.stdout.write(f"LOOKOUT web {msgspec.json.encode(line).decode()}\n")
    sys.stdout.flush()


def die_with_parent(parent: int) -> None:
    """Ask Linux for SIGTERM when the parent dies; leave at once if it has already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process is gone")
