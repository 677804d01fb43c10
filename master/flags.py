"""The command line of `master`, and how its flags become configuration."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from master import logs
from master.config import (
    HTTP_DEFAULT,
    LISTEN_DEFAULT,
    MODEL_DEFAULT,
    CoreConfig,
    Limits,
    data_dir_default,
)
from master.models import cli as model_cli
from master.token import ensure_token, token_path
from master.up import UpConfig
from wire.address import parse_address
from wire.errors import EnvironmentFault

WORKERS_MAX = 256


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; `docs/commands.md` is held against it."""
    parser = argparse.ArgumentParser(
        prog="master", description="Serve image classification on the machines you have."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_up(commands.add_parser("up", help="start core, web and local workers; keep them alive"))
    _add_core(commands.add_parser("core", help="the core alone (what `up` starts)"))
    _add_status(commands.add_parser("status", help="show workers and jobs in the terminal"))
    _add_data_flags(commands.add_parser("token", help="print the join token; make one if needed"))
    _add_model_set(model_cli.add_parser(commands))
    return parser


def _add_model_set(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("set", help="move the running cluster to another model")
    parser.add_argument("name", metavar="NAME", help="architecture, as for `master up --model`")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint of yours")
    _add_data_flags(parser)
    parser.add_argument("--core", metavar="ADDRESS", help="the core (its socket in --data)")


def _add_up(parser: argparse.ArgumentParser) -> None:
    _add_core_flags(parser)
    add = parser.add_argument
    add("--http", metavar="HOST:PORT", help=f"page and API ({HTTP_DEFAULT}, else port 8080)")
    add("--workers", type=count, default=0, metavar="N", help="local workers (0)")
    add(
        "--worker-arg",
        action="append",
        default=[],
        metavar="ARG",
        help="pass ARG on to the local workers, as in --worker-arg=--slots=8; may be repeated",
    )
    add("--web-processes", type=count, default=1, metavar="N", help="web processes (1)")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a Host name under which the page may be reached; may be repeated",
    )
    add(
        "--allow-private-urls",
        action="store_true",
        help="let image URLs point into private networks",
    )


def _add_core(parser: argparse.ArgumentParser) -> None:
    _add_core_flags(parser)
    parser.add_argument("--web", metavar="ADDRESS", help="where web processes connect")


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_data_flags(parser)
    add = parser.add_argument
    add("--core", metavar="ADDRESS", help="the core (the socket in the data directory)")
    add("--watch", action="store_true", help="refresh every second until Ctrl-C")
    add("--json", action="store_true", help="one JSON object")


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="data (~/.local/share/lookout)")
    add("--token-file", type=Path, metavar="F", help="the join token (DIR/token)")


def _add_core_flags(parser: argparse.ArgumentParser) -> None:
    _add_data_flags(parser)
    add = parser.add_argument
    add(
        "--listen",
        default=LISTEN_DEFAULT,
        metavar="HOST:PORT",
        help=f"where workers join ({LISTEN_DEFAULT})",
    )
    add("--model", default=MODEL_DEFAULT, metavar="NAME", help=f"architecture ({MODEL_DEFAULT})")
    add("--weights", type=Path, metavar="FILE", help="a checkpoint of yours")
    add("--offline", action="store_true", help="download nothing")
    add("--open", action="store_true", help="let workers join without a token (a closed lab)")
    add("--heartbeat", type=float, default=0.5, metavar="S", help="s between heartbeats (0.5)")
    add(
        "--lease-ttl",
        type=float,
        default=15.0,
        metavar="S",
        help="s after which the leases of a silent worker end (15)",
    )
    limits = Limits()
    add(
        "--queue-jobs",
        type=int,
        default=limits.queue_jobs_max,
        metavar="N",
        help=f"most jobs without an outcome ({limits.queue_jobs_max})",
    )
    add(
        "--queue-bytes",
        type=int,
        default=limits.queue_bytes_max,
        metavar="N",
        help="most bytes of images without an outcome (64 GiB)",
    )
    add("--log-format", choices=logs.LOG_FORMATS, default="text", help="(text)")
    add("--log-level", choices=logs.LOG_LEVELS, default="info", help="(info)")


def count(text: str) -> int:
    """A number of processes."""
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {WORKERS_MAX}")
    return number


def data_dir(options: argparse.Namespace) -> Path:
    """`--data` or the default, absolute."""
    return Path(options.data or data_dir_default()).expanduser().absolute()


def token_file(options: argparse.Namespace) -> Path:
    """`--token-file` or the one in the data directory."""
    return Path(options.token_file or token_path(data_dir(options)))


def token(options: argparse.Namespace) -> str:
    """The join token, made if there is none."""
    return ensure_token(token_file(options), os.environ.get("LOOKOUT_TOKEN", "").strip())


def core_config(options: argparse.Namespace) -> CoreConfig:
    """What `master core` needs to know."""
    parse_address(options.listen)
    limits = replace(
        Limits(), queue_jobs_max=options.queue_jobs, queue_bytes_max=options.queue_bytes
    )
    if min(limits.queue_jobs_max, limits.queue_bytes_max) < 1:
        raise EnvironmentFault("bad_flag", "--queue-jobs and --queue-bytes must be at least 1")
    return CoreConfig(
        data_dir=data_dir(options),
        listen=options.listen,
        web=options.web or "",
        model=options.model,
        weights=options.weights,
        offline=options.offline,
        token=None if options.open else token(options),
        heartbeat_interval_s=options.heartbeat,
        lease_ttl_s=options.lease_ttl,
        limits=limits,
        log_format=options.log_format,
        log_level=options.log_level,
    )


def up_config(options: argparse.Namespace) -> UpConfig:
    """What `master up` needs to know; the core's flags travel on as arguments."""
    file = token_file(options)
    token(options)
    web = ["--processes", str(max(1, options.web_processes))]
    for name in options.allow_host:
        web += ["--allow-host", name]
    if options.allow_private_urls:
        web.append("--allow-private-urls")
    http = options.http or HTTP_DEFAULT
    parse_address(http)
    return UpConfig(
        data_dir=data_dir(options),
        http=http,
        http_given=options.http is not None,
        workers=options.workers,
        token_file=file,
        core_arguments=_core_arguments(options, file),
        web_arguments=tuple(web),
        worker_arguments=tuple(options.worker_arg),
        log_format=options.log_format,
        log_level=options.log_level,
    )


def _core_arguments(options: argparse.Namespace, file: Path) -> tuple[str, ...]:
    arguments = ["--data", str(data_dir(options)), "--token-file", str(file)]
    for flag in ("listen", "model", "heartbeat", "lease_ttl", "queue_jobs", "queue_bytes"):
        arguments += [f"--{flag.replace('_', '-')}", str(getattr(options, flag))]
    arguments += ["--log-format", options.log_format, "--log-level", options.log_level]
    if options.weights is not None:
        arguments += ["--weights", str(options.weights)]
    for flag in ("offline", "open"):
        if getattr(options, flag):
            arguments.append(f"--{flag}")
    return tuple(arguments)
