"""`master up`: everything on one machine, and the line that joins others to it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from master.config import HTTP_FALLBACK
from master.logs import fields
from master.supervise import Child, ChildFailed, Supervisor, python
from wire.address import TcpAddress, parse_address

log = logging.getLogger("lookout.up")

# What a child's exit status says; the same numbers in `webui` and `worker`.
EXIT_ADDRESS_UNUSABLE = 3
EXIT_USAGE = 2
CORE_STAGE, WORKER_STAGE, WEB_STAGE = 0, 1, 2
WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104


@dataclass(frozen=True, slots=True)
class UpConfig:
    """What `master up` was asked for; `core_arguments` go to the core as they are."""

    data_dir: Path
    http: str
    http_given: bool
    workers: int
    token_file: Path
    core_arguments: tuple[str, ...]
    web_arguments: tuple[str, ...]
    worker_arguments: tuple[str, ...]
    log_format: str
    log_level: str


def core_child(config: UpConfig) -> Child:
    """The core; a data directory in use or missing weights are not mended by restarting."""
    return Child(
        name="core",
        command=lambda: python("master", "core", *config.core_arguments),
        stage=CORE_STAGE,
        ready_word="core",
        fatal=frozenset({EXIT_USAGE, EXIT_ADDRESS_UNUSABLE}),
    )


def web_child(config: UpConfig, http: str, core: str) -> Child:
    """One web parent (it runs `--processes` of them)."""
    arguments = ("--http", http, "--core", core, "--token-file", str(config.token_file))
    logging_flags = ("--log-format", config.log_format, "--log-level", config.log_level)
    return Child(
        name="web",
        command=lambda: python("webui", *arguments, *logging_flags, *config.web_arguments),
        stage=WEB_STAGE,
        ready_word="web",
        fatal=frozenset({EXIT_USAGE, EXIT_ADDRESS_UNUSABLE}),
    )


def worker_child(config: UpConfig, number: int, core_listen: str) -> Child:
    """One local worker."""
    name = f"{socket.gethostname()}-{number}"
    # Workers that each take every core get in each other's way.
    threads = max(1, len(os.sched_getaffinity(0)) // max(1, config.workers))
    arguments = ("--name", name, "--token-file", str(config.token_file), "--threads", str(threads))
    logging_flags = ("--log-format", config.log_format, "--log-level", config.log_level)
    return Child(
        name=name,
        command=lambda: python(
            "worker", "join", core_listen, *arguments, *logging_flags, *config.worker_arguments
        ),
        stage=WORKER_STAGE,
    )


async def run_up(config: UpConfig) -> int:
    """Start everything, say where it is, run until a signal."""
    supervisor = Supervisor()
    supervisor.handle_signals()
    core = core_child(config)
    try:
        await supervisor.start(core)
        listen, web_address = str(core.announced["listen"]), str(core.announced["web"])
        for number in range(1, config.workers + 1):
            await supervisor.start(worker_child(config, number, local_address(listen)))
        web = await _start_web(supervisor, config, web_address)
        _say(config, listen, str(web.announced["http"]))
        return await supervisor.until_stopped()
    except ChildFailed as failure:
        log.error(**fields("start_failed", child=failure.child, status=failure.status))
        await supervisor.stop()
        return failure.status
    finally:
        await supervisor.stop()


async def _start_web(supervisor: Supervisor, config: UpConfig, core: str) -> Child:
    """The page where it was asked for; where port 80 was only the default, else on 8080."""
    web = web_child(config, config.http, core)
    try:
        await supervisor.start(web)
    except ChildFailed as failure:
        if config.http_given or failure.status != EXIT_ADDRESS_UNUSABLE:
            raise
        log.warning(
            **fields(
                "http_port_unusable",
                wanted=config.http,
                using=HTTP_FALLBACK,
                hint="port 80 needs root or CAP_NET_BIND_SERVICE, and nobody else on it",
            )
        )
        web = web_child(config, HTTP_FALLBACK, core)
        await supervisor.start(web)
    return web


def _say(config: UpConfig, listen: str, http: str) -> None:
    page, join = parse_address(http), parse_address(listen)
    assert isinstance(page, TcpAddress) and isinstance(join, TcpAddress)
    token = config.token_file.read_text(encoding="utf-8").strip()
    lines = (
        "",
        f"  Lookout   {_url(page)}",
        f"  join      worker join {_place(join)} --token {token}",
        f"  data      {config.data_dir}",
        "",
    )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _url(page: TcpAddress) -> str:
    host = _host(page)
    return f"http://{host}/" if page.port == 80 else f"http://{host}:{page.port}/"


def _place(join: TcpAddress) -> str:
    return _host(join) if join.port == 6550 else f"{_host(join)}:{join.port}"


def _host(address: TcpAddress) -> str:
    host = own_address() if address.host in WILDCARDS else address.host
    return f"[{host}]" if ":" in host else host


def own_address() -> str:
    """The address that this machine would use towards others; loopback if it has no network.

    A UDP socket that is connected sends nothing: the kernel only picks a route
    (to a documentation address, RFC 5737).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def local_address(listen: str) -> str:
    """Where a process on this machine reaches a listening address."""
    address = parse_address(listen)
    if isinstance(address, TcpAddress) and address.host in WILDCARDS:
        return f"127.0.0.1:{address.port}"
    return listen


def run(config: UpConfig) -> int:
    """Blocking form, for the command line."""
    return asyncio.run(run_up(config))
