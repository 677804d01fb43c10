"""The command `classify`: images in, results on stdout, an exit status for scripts."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from types import FrameType

from client.blocking import Lookout, Results
from client.display import Display
from client.errors import BadInput, ClientError, FailedImage, Refused, TimedOut, Unreachable
from client.flags import STDIN, Options, build_parser, folders, parse, videos
from client.output import header, printable, row
from client.sources import Data, ImageLike
from client.video import Video, load_av

EXIT_DONE = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_SERVER = 3
EXIT_DEADLINE = 4
EXIT_INTERRUPTED = 130
EXIT_NOBODY_READS = 141

__all__ = ["build_parser", "main"]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    options = parse(arguments)
    _set_encoding(options)
    try:
        return Command(options).run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_NOBODY_READS
    except ClientError as error:
        _say(str(error))
        return _status(error)
    except OSError as error:
        _silence_stdout()
        _say(f"can't write the results: {error.strerror or error}")
        return EXIT_USAGE


class Command:
    """One run. Results that were read are written, whatever ends it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._row = row(options.format, options.top)
        self._counts: Counter[bool] = Counter()
        self._interrupted = False
        self._began_at = time.monotonic()

    def run(self) -> int:
        """Classify, write, and return the exit status."""
        options = self._options
        images = list(_images(options))
        early: ClientError | None = None
        with Lookout(options.server, limits=options.limits) as lookout:
            with Display(quiet=options.quiet) as display:
                results = self._start(lookout, display, images)
                try:
                    self._write(results, display)
                except (Unreachable, Refused, TimedOut) as error:
                    early = error
            return self._end(early)

    def _start(self, lookout: Lookout, display: Display, images: list[ImageLike]) -> Results:
        options = self._options
        found = folders(options)
        if not videos(options.images):  # nobody knows how many frames one has
            display.count(len(images) - len(found), found, recursive=options.recursive)
        results = lookout.classify(
            images,
            concurrency=options.concurrency,
            deadline_s=options.deadline_s,
            recursive=options.recursive,
            in_order=options.in_order,
            on_result=lambda _: display.ended(),
            on_retry=display.retry,
            on_wait=display.wait,
        )
        self._stop_on_interrupt(results)
        return results

    def _write(self, results: Results, display: Display) -> None:
        with results:
            for outcome in results:
                if not self._counts and (head := self._header()):
                    display.row(head)
                self._counts[outcome.ok] += 1
                display.row(self._row(outcome))

    def _header(self) -> str:
        return header(self._options.format, self._options.top)

    def _stop_on_interrupt(self, results: Results) -> None:
        """The first Ctrl-C ends the work and lets what is done be written; the second ends us."""

        def stop(_: int, __: FrameType | None) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._interrupted = True
            results.stop()

        signal.signal(signal.SIGINT, stop)

    def _end(self, early: ClientError | None) -> int:
        done, failed = self._counts[True], self._counts[False]
        if self._interrupted:
            _say(
                f"interrupted: {done} classified, {failed} failed; the server finishes what it has"
            )
            return EXIT_INTERRUPTED
        if early is not None:
            _say(f"{early}; {done} classified, {failed} failed, the rest was not sent")
            return _status(early)
        if done + failed == 0:
            raise BadInput(_nothing(self._options))
        if not self._options.quiet:
            took_s = time.monotonic() - self._began_at
            rate = (done + failed) / max(took_s, 1e-9)
            _say(f"{done} classified, {failed} failed in {took_s:.1f} s ({rate:.1f}/s)")
        return EXIT_SOME_FAILED if failed else EXIT_DONE


def _images(options: Options) -> Iterator[ImageLike]:
    films = set(videos(options.images))
    if films:
        load_av()  # or say what is missing before anything is sent
    for image in options.images:
        if image in films:
            yield Video(image, options.every_s)
        else:
            yield _stdin(options) if image == STDIN else image


def _stdin(options: Options) -> Data:
    """The one image on stdin, at most one byte more than is allowed of it."""
    if sys.stdin is None or sys.stdin.isatty():
        raise BadInput("'-' reads an image from stdin, which is a terminal: classify - < photo.jpg")
    return Data(sys.stdin.buffer.read(options.limits.image_bytes + 1), name="stdin")


def _nothing(options: Options) -> str:
    where = ", ".join(printable(str(path)) for path in folders(options))
    hint = "" if options.recursive else "; --recursive looks into their folders too"
    return f"no image in {where}: files that end in .jpg, .png, .webp, .gif, .bmp or .tiff{hint}"


def _status(error: ClientError) -> int:
    if isinstance(error, TimedOut):
        return EXIT_DEADLINE
    if isinstance(error, FailedImage):
        return EXIT_SOME_FAILED
    return EXIT_USAGE if isinstance(error, BadInput) else EXIT_NO_SERVER


def _say(text: str) -> None:
    sys.stderr.write(f"classify: {printable(text)}\n")


def _set_encoding(options: Options) -> None:
    """JSON and CSV are UTF-8 wherever they are read; a table is what the terminal can show."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")
    if options.format != "table" and (again := getattr(sys.stdout, "reconfigure", None)):
        # csv writes its own line ends.
        again(encoding="utf-8", newline="")


def _silence_stdout() -> None:
    """Python flushes stdout at exit, and would complain of a broken pipe or a full disk again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
