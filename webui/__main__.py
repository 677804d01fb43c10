"""`python -m webui`: the command line of a web process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from webui import logs
from webui.config import Config, Limits
from webui.server import ADDRESS_UNUSABLE, run
from wire.address import TcpAddress, parse_address
from wire.errors import EnvironmentFault

HTTP_PORT = 80
PROCESSES_MAX = 64
# The same numbers as in `master` and `worker`.
EXIT_USAGE, EXIT_ADDRESS_UNUSABLE = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; returns the exit status."""
    try:
        run(configure(arguments))
    except EnvironmentFault as fault:
        sys.stderr.write(f"lookout web: {fault}\n")
        return EXIT_ADDRESS_UNUSABLE if fault.code == ADDRESS_UNUSABLE else EXIT_USAGE
    return 0


def configure(arguments: Sequence[str] | None = None) -> Config:
    """Build the configuration from flags.

    Raises:
        EnvironmentFault: an address can't be read.
    """
    options = _parser().parse_args(arguments)
    http = parse_address(options.http, HTTP_PORT)
    if not isinstance(http, TcpAddress):
        _parser().error("--http takes HOST:PORT")
    token = options.token_file.read_text().strip() if options.token_file else None
    limits = Limits(
        image_bytes=options.image_bytes_max,
        request_bytes=options.request_bytes_max,
        request_images=options.request_images_max,
    )
    return Config(
        host=http.host,
        port=http.port,
        core=options.core,
        token=token,
        processes=options.processes,
        allow_hosts=tuple(options.allow_host),
        allow_private_urls=options.allow_private_urls,
        die_with_parent=options.die_with_parent,
        log_format=options.log_format,
        log_level=options.log_level,
        limits=limits,
    )


def _parser() -> argparse.ArgumentParser:
    defaults = Limits()
    parser = argparse.ArgumentParser(prog="python -m webui", description=__doc__)
    parser.add_argument("--http", default=f"0.0.0.0:{HTTP_PORT}", metavar="HOST:PORT")
    parser.add_argument("--core", required=True, metavar="ADDRESS", help="HOST:PORT or unix:/path")
    parser.add_argument("--token-file", type=_readable_file, metavar="FILE")
    parser.add_argument("--processes", type=_count, default=1, metavar="N")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a name by which browsers call this server (IPs and its hostname always may)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-private-urls", action="store_true",
        help="let URL images come from private, loopback and link-local addresses",
    )  # fmt: skip
    parser.add_argument("--image-bytes-max", type=_count_bytes, default=defaults.image_bytes)
    parser.add_argument("--request-bytes-max", type=_count_bytes, default=defaults.request_bytes)
    parser.add_argument("--request-images-max", type=_count_bytes, default=defaults.request_images)
    parser.add_argument("--die-with-parent", action="store_true")
    parser.add_argument("--log-format", choices=logs.FORMATS, default="text")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    return parser


def _readable_file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= PROCESSES_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number from 1 to {PROCESSES_MAX}")
    return int(text)


def _count_bytes(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
