"""Slow work in a process of its own: one JSON object in, one out.

What needs torch only once (converting a model, comparing engines) runs here, so
that the worker itself stays small, keeps beating, and survives what a library may
do to a process. The child ends when its parent does: its standard input closes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import msgspec

from wire.errors import EnvironmentFault

_running: set[subprocess.Popen[bytes]] = set()


def run(module: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Answer of `python -m module` to the request.

    Raises `EnvironmentFault`: whatever the child raised, `child_timeout`, or `child_died`.
    """
    command = [sys.executable, "-m", module]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _running.add(child)
    try:
        return _answer(child, module, request, timeout_s)
    finally:
        _running.discard(child)
        child.kill()
        child.wait()


def end_all() -> None:
    """End the children of this process; for its own end."""
    for child in list(_running):
        child.kill()
        child.wait()


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: read the request, do the work, write the answer."""
    warnings.simplefilter("ignore")
    # Libraries print what they please: only the answer may reach the real standard output.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    try:
        answer = {"done": work(request)}
    except EnvironmentFault as fault:
        answer = {"fault": {"code": fault.code, "reason": fault.reason}}
    except Exception:  # the edge of the process: its parent reads the status and stderr
        traceback.print_exc()
        os._exit(1)
    answers.write(msgspec.json.encode(answer))
    answers.close()
    # Libraries' threads may still run; see `worker.cli._end`.
    os._exit(0)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _answer(
    child: subprocess.Popen[bytes], module: str, request: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    assert child.stdin is not None and child.stdout is not None
    late = threading.Timer(timeout_s, child.kill)
    late.daemon = True
    late.start()
    try:
        child.stdin.write(msgspec.json.encode(request) + b"\n")
        child.stdin.flush()
        text = child.stdout.read()
    except BrokenPipeError:
        text = b""
    was_late = not late.is_alive()
    late.cancel()
    if not text:
        if was_late:
            raise EnvironmentFault(
                "child_timeout", f"{module} took longer than {timeout_s:g} s: is this machine busy?"
            )
        raise EnvironmentFault(
            "child_died", f"{module} ended with status {child.wait()}; its words are in the log"
        )
    answer: dict[str, Any] = msgspec.json.decode(text)
    if fault := answer.get("fault"):
        raise EnvironmentFault(fault["code"], fault["reason"])
    done: dict[str, Any] = answer["done"]
    return done
