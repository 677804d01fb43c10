"""The socket between a lab's keeper and whoever drives the lab: one JSON line each way.

Both ends are here, so that they can't differ. Leaves what is said to `messages`.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from netem.errors import NetemError
from netem.lab.messages import Answer, Done, Fault, Request, State

LINE_BYTES_MAX: Final = 1024 * 1024
REQUEST_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
BACKLOG: Final = 16


@contextlib.contextmanager
def listener(path: Path) -> Iterator[socket.socket]:
    """The keeper's end, open while the block runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(path))
        made.listen(BACKLOG)
        yield made


def hear(connection: socket.socket) -> bytes:
    """The line of whoever asks the keeper.

    Raises:
        OSError: it is gone, or says nothing for `REQUEST_TIMEOUT_S`.
    """
    connection.settimeout(REQUEST_TIMEOUT_S)
    return connection.makefile("rb").readline(LINE_BYTES_MAX)


def line_of(message: Request | Answer) -> bytes:
    """A message as it travels."""
    return msgspec.json.encode(message) + b"\n"


def ask(path: Path, name: str, request: Request) -> State | Done:
    """Send one request to the keeper of a lab, and wait for its answer.

    Raises:
        NetemError: the keeper does not answer, or it could not do it.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(line_of(request))
            line = connection.makefile("rb").readline(LINE_BYTES_MAX)
    except OSError as problem:
        raise _gone(name, str(problem)) from problem
    if not line:
        raise _gone(name, "it hung up")
    return _open(line)


def first_answer(stdout: IO[bytes], timeout_s: float) -> Done | State | None:
    """What a keeper that was just started says on its stdout; None if it ended without a word.

    Raises:
        TimeoutError: it says nothing in time.
        NetemError: it could not build the lab; with its reason.
    """
    if not select.select([stdout], [], [], timeout_s)[0]:
        raise TimeoutError
    line = stdout.readline(LINE_BYTES_MAX)
    return _open(line) if line else None


def _open(line: bytes) -> State | Done:
    answer: Answer = msgspec.json.decode(line, type=Answer)
    if isinstance(answer, Fault):
        raise answer.error()
    return answer


def _gone(name: str, why: str) -> NetemError:
    return NetemError(
        "gone",
        f"lab {name} does not answer ({why}): it has ended, or its keeper was killed; "
        f"`netem lab down {name}` removes what is left",
    )
