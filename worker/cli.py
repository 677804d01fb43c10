"""The command `worker`: `join`, `check` and `train`.

Owns flags, exit codes and signals. Exit codes: 0 after a clean leave, 1 if the
time to drain was not enough, 2 for what the user has to change first.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from wire.address import DEFAULT_PORT
from wire.errors import EnvironmentFault
from wire.streams import STREAMS_PER_WORKER_MAX
from worker.engine import Precision
from worker.events import Exit

SLOTS_MAX = 4096
NAME_CHARS_MAX = 128
EXIT_USER = 2
BATCH_WAIT_MS_MAX = 1000.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    flags = _parser(given).parse_args(given)
    try:
        code: int = flags.run(flags)
        return code
    except EnvironmentFault as fault:
        _complain(fault.reason)
        return EXIT_USER
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; `docs/commands.md` is held against it."""
    return _parser(["train"])


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worker", description="Classify images for a Lookout master."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_join(commands.add_parser("join", help="join a master and take its work"))
    check = commands.add_parser("check", help="say what this machine can do")
    check.add_argument("--cache", type=Path, help="folder for weights")
    check.set_defaults(run=_check)
    _add_train(commands, wanted=given[:1] == ["train"])
    return parser


def _add_join(join: argparse.ArgumentParser) -> None:
    join.add_argument(
        "master", metavar="HOST[:PORT]", help=f"the master's address (port {DEFAULT_PORT})"
    )
    join.add_argument("--name", type=_name, help="stable name (default: HOSTNAME-1, -2, …)")
    join.add_argument("--slots", type=_count(SLOTS_MAX), help="leases to hold at once")
    join.add_argument(
        "--streams",
        type=_streams,
        metavar="N|auto",
        help="TCP connections to the master (default: auto, by the loss)",
    )
    _add_engine(join)
    token = join.add_mutually_exclusive_group()
    token.add_argument("--token", help="join token; also LOOKOUT_TOKEN")
    token.add_argument("--token-file", type=Path, metavar="FILE", help="file with the join token")
    join.add_argument("--cache", type=Path, metavar="DIR", help="folder for weights and names")
    join.add_argument("--pixels-max", type=_count(2**31), help="largest image decoded")
    join.add_argument(
        "--decode-timeout", type=_seconds, default=10.0, help="seconds to decode one image"
    )
    join.add_argument(
        "--drain-timeout", type=_seconds, default=30.0, help="seconds to finish on SIGTERM"
    )
    join.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    join.add_argument("--log-format", choices=["text", "json"], default="text")
    join.add_argument("--enable-fault-hooks", action="store_true", help=argparse.SUPPRESS)
    join.set_defaults(run=_join)


def _add_engine(join: argparse.ArgumentParser) -> None:
    """How the network is run."""
    join.add_argument(
        "--engine",
        choices=["auto", "torch", "openvino", "null"],
        metavar="auto|torch|openvino",
        default="auto",
        help="what runs the network (default: auto, the fastest by measurement)",
    )
    join.add_argument(
        "--precision",
        choices=["auto", *Precision],
        default="auto",
        help="what the network computes in (default: auto, the fastest that agrees with fp32)",
    )
    join.add_argument(
        "--calibration-images",
        type=Path,
        metavar="DIR",
        help="images like those to be classified, to quantise the network to int8 with",
    )
    join.add_argument(
        "--preprocess",
        choices=["exact", "fast"],
        help="resize exactly as torchvision, or faster (default: exact with --precision fp32)",
    )
    join.add_argument("--threads", type=_count(1024), help="threads of a forward pass")
    join.add_argument("--batch", type=_count(1024), help="largest batch of a forward pass")
    join.add_argument(
        "--batch-wait",
        type=_milliseconds,
        default=0.0,
        metavar="MS",
        help="milliseconds a batch waits for images that are being decoded (default: 0)",
    )


def _add_train(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], *, wanted: bool
) -> None:
    """Declare `train`; its flags come with torch, which the other commands start without."""
    if not wanted:
        commands.add_parser("train", help="train a classifier on a folder per class")
        return
    from worker.train import cli as train

    train.add_parser(commands)
    for parser in commands.choices.values():
        if parser.prog.endswith(" train"):
            parser.set_defaults(run=train.run)


def _join(flags: argparse.Namespace) -> int:
    from wire.process import take_short_turns
    from worker import logs
    from worker.config import build_config
    from worker.decode import silence_pillow
    from worker.naming import claim_name
    from worker.service import Service

    _calm_openmp()
    logs.set_up(flags.log_level, flags.log_format)
    config = build_config(flags, os.environ)
    claimed = None if config.name else claim_name(config.cache / "names")
    name = claimed.name if claimed else config.name
    assert name is not None
    log = logging.getLogger("lookout.worker")
    logs.event(log, logging.INFO, "starting", name=name, pid=os.getpid(), **config.shown())
    silence_pillow()
    take_short_turns()
    service = Service(config, name, secrets.token_hex(8), f"lookout {_version()}")
    signal.signal(signal.SIGTERM, service.drain)
    signal.signal(signal.SIGINT, service.drain)
    return _end(service.run())


def _calm_openmp() -> None:
    # Threads of torch that spin while they wait make a crowded machine crawl: with 6
    # processes on 2 cores GoogLeNet does 1 or 2 images/s spinning, 8 to 16 sleeping.
    # The library reads this when torch is imported, which comes later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _end(end: Exit) -> int:
    """Leave the process as the agent decided; doesn't come back from a served join."""
    if end.code == EXIT_USER:
        _complain(end.reason)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if end.restart:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    # A thread inside C code (a decoder, torch) may still run: tearing the interpreter
    # down under it can crash, so the kernel tidies up instead.
    os._exit(end.code)


def _check(flags: argparse.Namespace) -> int:
    from worker.check import report

    _calm_openmp()
    report(flags.cache, os.environ)
    return 0


def _complain(reason: str) -> None:
    sys.stderr.write(f"worker: {reason}\n")


def _version() -> str:
    try:
        return importlib.metadata.version("lookout")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _count(largest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= largest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {largest}")
        return int(text)

    return parse


def _streams(text: str) -> int | None:
    return None if text == "auto" else _count(STREAMS_PER_WORKER_MAX)(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.1 <= value <= 86_400.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 86400")
    return value


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= BATCH_WAIT_MS_MAX:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of milliseconds from 0 to {BATCH_WAIT_MS_MAX:g}"
        )
    return value


def _name(text: str) -> str:
    if not text.strip() or len(text) > NAME_CHARS_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"a name has 1 to {NAME_CHARS_MAX} printable characters, not {text!r}"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
