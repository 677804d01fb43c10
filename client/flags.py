"""The flags of `classify`, and what they may be."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.config import CONCURRENCY, CONCURRENCY_MAX, Limits
from client.sources import is_url
from client.video import EVERY_S, EVERY_S_MIN, is_video

SERVER_DEFAULT = "http://localhost"
STDIN = "-"
TOP_MAX = 5

Format = Literal["table", "json", "csv"]

EPILOG = """\
Exit status: 0 every image has a result, 1 some have none, 2 wrong usage, 3 no server answers
or it takes no images, 4 the deadline passed, 130 interrupted, 141 nobody reads the results.
An image is classified and counted once, however often its upload is repeated.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What one run of `classify` was asked for."""

    images: tuple[str, ...]
    server: str
    concurrency: int
    deadline_s: float | None
    limits: Limits
    recursive: bool
    every_s: float
    in_order: bool
    format: Format
    top: int
    quiet: bool


def build_parser() -> argparse.ArgumentParser:
    """The parser of `classify`."""
    parser = argparse.ArgumentParser(
        prog="classify",
        description="Classify images on a Lookout server; results on stdout as they come.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="PATH|DIR|URL|VIDEO|-",
        help="image files, folders of images, URLs that the server fetches, video files (of which "
        "frames are taken), or - for stdin",
    )
    _add_server(parser)
    _add_work(parser)
    _add_output(parser)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    parser.add_argument(
        "--server",
        metavar="URL",
        help=f"the master's page; default LOOKOUT_URL, else {SERVER_DEFAULT}",
    )
    parser.add_argument(
        "--deadline", metavar="S", type=_seconds, help="seconds for everything; default none"
    )
    parser.add_argument(
        "--patience",
        metavar="S",
        type=_seconds,
        default=limits.patience_s,
        help="seconds to go on trying a server that is away; default %(default)g, and "
        f"{limits.first_patience_s:g} at most if it never answered",
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--concurrency",
        metavar="N",
        type=_Between(1, CONCURRENCY_MAX),
        default=CONCURRENCY,
        help=f"images under way at once, 1 to {CONCURRENCY_MAX}; default %(default)s",
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="folders in folders too")
    parser.add_argument(
        "--every",
        metavar="S",
        type=_interval,
        default=EVERY_S,
        help="of a video, a frame every S seconds; default %(default)g",
    )
    parser.add_argument(
        "--image-bytes-max",
        metavar="N",
        type=_Between(1, 2**31),
        default=Limits().image_bytes,
        help="largest image that is read; default %(default)s, as on the server",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    shapes = parser.add_mutually_exclusive_group()
    for shape, text in (
        ("table", "for people; the default"),
        ("json", "one JSON object a line"),
        ("csv", "a header, then a line an image"),
    ):
        shapes.add_argument(
            f"--{shape}", dest="format", action="store_const", const=shape, help=text
        )
    parser.add_argument(
        "--top",
        metavar="N",
        type=_Between(1, TOP_MAX),
        help=f"best classes of each image, 1 to {TOP_MAX}; default 1, with --json {TOP_MAX}",
    )
    parser.add_argument(
        "--in-order",
        action="store_true",
        help="results in the order of the images; always with a video",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, no summary; errors are still told"
    )


def parse(arguments: list[str] | None) -> Options:
    """Options from the command line and the environment.

    Raises:
        SystemExit: wrong usage, with status 2 and a message; or --help.
    """
    parser = build_parser()
    given = parser.parse_args(arguments)
    if given.images.count(STDIN) > 1:
        parser.error("'-' stands twice, and stdin holds one image")
    shape: Format = given.format or "table"
    return Options(
        images=tuple(given.images),
        server=given.server or os.environ.get("LOOKOUT_URL") or SERVER_DEFAULT,
        concurrency=given.concurrency,
        deadline_s=given.deadline,
        limits=Limits(patience_s=given.patience, image_bytes=given.image_bytes_max),
        recursive=given.recursive,
        every_s=given.every,
        # Rows of a video are read from its beginning to its end.
        in_order=given.in_order or bool(videos(given.images)),
        format=shape,
        top=given.top or (TOP_MAX if shape == "json" else 1),
        quiet=given.quiet,
    )


def folders(options: Options) -> list[Path]:
    """Those of the images that are folders."""
    paths = (Path(image) for image in options.images if image != STDIN and not is_url(image))
    return [path for path in paths if path.is_dir()]


def videos(images: Iterable[str]) -> list[str]:
    """Those of the images that are video files."""
    named = (image for image in images if image != STDIN and not is_url(image))
    return [image for image in named if is_video(image) and not Path(image).is_dir()]


def _interval(text: str) -> float:
    if (value := _seconds(text)) < EVERY_S_MIN:
        raise argparse.ArgumentTypeError(f"{text!r}: give at least {EVERY_S_MIN:g} seconds")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds above 0")
    return value


class _Between:
    """Whole numbers from `low` to `high`."""

    def __init__(self, low: int, high: int) -> None:
        self._low = low
        self._high = high

    def __call__(self, text: str) -> int:
        allowed = f"give a whole number from {self._low} to {self._high}"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: {allowed}") from None
        if not self._low <= value <= self._high:
            raise argparse.ArgumentTypeError(f"{text}: {allowed}")
        return value
