"""One HTTP request for the rest of a weights file, bounded in time.

A network that refuses, swallows packets or never resolves a name costs at most
`Patience.answer_s`: the first answer is awaited from a thread that is left
behind when it doesn't come, for a name lookup can't be interrupted.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from master.models.catalogue import Pretrained
from master.models.progress import Progress, progress_shown
from wire.errors import EnvironmentFault

# The table's sizes are rounded; a login page or an error page is off by far more than 1 %.
_SIZE_TOLERANCE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download may take before the next source of weights is tried.

    `connect_s` bounds one TCP connect, `answer_s` all from name lookup to the
    first header, redirects included. Later, each `stall_s` must bring
    `stall_bytes`. In all `attempts` connections are made, as long as each brings something.
    """

    connect_s: float = 3.0
    answer_s: float = 4.0
    stall_s: float = 10.0
    stall_bytes: int = 64 * 1024
    attempts: int = 5


class Broken(Exception):
    """The connection ended before the file did; what came is kept."""


def make_client(patience: Patience) -> httpx.Client:
    """A client with the environment's proxies and certificates."""
    timeout = httpx.Timeout(patience.stall_s, connect=patience.connect_s)
    try:
        return httpx.Client(timeout=timeout, follow_redirects=True)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise EnvironmentFault(
            "bad_network_settings",
            f"the proxy or certificate settings of the environment can't be used: {error} "
            "(HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE)",
        ) from error


def take_up(client: httpx.Client, preset: Pretrained, file: BinaryIO, patience: Patience) -> None:
    """Request the rest of the file and append it.

    Raises:
        Broken: the connection ended early; what came is in the file.
        EnvironmentFault: no answer, a refusal, or another file than promised.
    """
    held_bytes = file.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity"}
    if held_bytes:
        headers["Range"] = f"bytes={held_bytes}-"
    request = client.build_request("GET", preset.url, headers=headers)
    with contextlib.closing(_answer(client, request, patience.answer_s)) as response:
        start, size_bytes = _extent(preset, response, held_bytes)
        if start < held_bytes:
            file.truncate(start)
        if size_bytes > start:
            _copy(response, file, start, size_bytes, patience)


def _answer(client: httpx.Client, request: httpx.Request, answer_s: float) -> httpx.Response:
    """The response's head within `answer_s`, whatever the resolver does."""
    answer = _begun(lambda: client.send(request, stream=True))
    try:
        return answer.result(answer_s)
    except TimeoutError as error:
        answer.add_done_callback(_close_late_answer)
        raise EnvironmentFault(
            "no_answer", f"no answer from {request.url.host} within {answer_s} s"
        ) from error
    except httpx.HTTPError as error:
        raise EnvironmentFault(
            "unreachable",
            f"can't reach {request.url.host}: {str(error) or type(error).__name__}",
        ) from error


def _begun(function: Callable[[], httpx.Response]) -> Future[httpx.Response]:
    """The call, begun in a thread that may be left behind (daemon: it can't delay exit)."""
    future: Future[httpx.Response] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="weights-request", daemon=True).start()
    return future


def _close_late_answer(future: Future[httpx.Response]) -> None:
    if future.exception() is None:
        future.result().close()


def _extent(preset: Pretrained, response: httpx.Response, held_bytes: int) -> tuple[int, int]:
    """Where the body begins in the file, and the file's length.

    A server without ranges answers 200 from the start; 416 says that all is held.
    """
    if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and held_bytes:
        return held_bytes, held_bytes
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        start, size_bytes = _content_range(response.headers.get("Content-Range", ""))
        if start != held_bytes:
            raise _refused(response, f"it sends from byte {start}, asked was {held_bytes}")
    elif response.status_code == httpx.codes.OK:
        start, size_bytes = 0, int(response.headers.get("Content-Length", -1))
    else:
        raise _refused(response, f"it answers {response.status_code} {response.reason_phrase}")
    expected_bytes = preset.size_mib * 2**20
    if size_bytes < 0:
        raise _refused(response, "it does not say how many bytes it sends")
    if abs(size_bytes - expected_bytes) > max(1024, expected_bytes * _SIZE_TOLERANCE):
        raise _refused(
            response, f"it offers {size_bytes} bytes, the file has some {expected_bytes:.0f}"
        )
    return start, size_bytes


def _content_range(text: str) -> tuple[int, int]:
    """Start and total of `bytes 5-9/10`; -1 for what can't be read."""
    span, _, total = text.removeprefix("bytes ").partition("/")
    start = span.partition("-")[0]
    return (int(start) if start.isdigit() else -1, int(total) if total.isdigit() else -1)


def _refused(response: httpx.Response, why: str) -> EnvironmentFault:
    return EnvironmentFault("download_refused", f"{response.url.host} has no such file: {why}")


def _copy(
    response: httpx.Response, file: BinaryIO, start: int, size_bytes: int, patience: Patience
) -> None:
    with progress_shown(Path(file.name).stem, start, size_bytes) as progress:
        pace = Pace(patience)
        try:
            for chunk in response.iter_raw():
                file.write(chunk)
                _advance(progress, pace, len(chunk))
        except httpx.HTTPError as error:
            raise Broken(str(error) or type(error).__name__) from error
        finally:
            file.flush()
    held_bytes = file.tell()
    if held_bytes < size_bytes:
        raise Broken(f"it ended at byte {held_bytes} of {size_bytes}")


def _advance(progress: Progress, pace: Pace, count: int) -> None:
    progress.advance(count)
    pace.note(count, time.monotonic())


class Pace:
    """Notices a connection that only trickles; one that is silent has its read timeout."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._since_s: float | None = None
        self._bytes = 0

    def note(self, count: int, now: float) -> None:
        if self._since_s is None:
            self._since_s = now
        self._bytes += count
        if now - self._since_s < self._patience.stall_s:
            return
        if self._bytes < self._patience.stall_bytes:
            raise EnvironmentFault(
                "download_stalled",
                f"the download brought {self._bytes} bytes in {now - self._since_s:.0f} s; "
                "what came is kept, and the next start continues there",
            )
        self._since_s, self._bytes = now, 0
