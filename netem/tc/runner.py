"""Runs the commands of a procedure on this machine, one after the other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from netem.tc.command import Command, Done, Procedure

COMMAND_TIMEOUT_S: Final = 10.0
"""They talk to the kernel alone, and take milliseconds."""
NOT_FOUND: Final = 127
TIMED_OUT: Final = 124
# `tc` is in sbin, which a user's PATH may lack.
SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

T = TypeVar("T")


class Runner(Protocol):
    """Runs one command to its end; never raises for what the command does."""

    def __call__(self, command: Command) -> Done: ...


class LocalRunner:
    """On this machine; `prefix` leads into a namespace: `("ip", "netns", "exec", NAME)`."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self._prefix = tuple(prefix)

    def __call__(self, command: Command) -> Done:
        """Run it; a missing program is status 127, one that hangs is killed and is 124."""
        argv = (*self._prefix, *command.argv)
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=_environment(),
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            return Done(NOT_FOUND, stderr=f"{argv[0]}: command not found")
        except subprocess.TimeoutExpired:
            return Done(TIMED_OUT, stderr=f"no end within {COMMAND_TIMEOUT_S} s")
        return Done(done.returncode, done.stdout, done.stderr)


def drive(procedure: Procedure[T], run: Runner) -> T:
    """Answer each command of `procedure` by running it, and return the procedure's result.

    An interrupt goes into the procedure, which takes back what it had begun.
    """
    try:
        command = next(procedure)
        while True:
            try:
                done = run(command)
            except BaseException as error:
                command = procedure.throw(error)
            else:
                command = procedure.send(done)
    except StopIteration as end:
        result: T = end.value
        return result


def _environment() -> dict[str, str]:
    """Messages in English, for we read them, and a PATH with what root has."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    wide = [*path, *(folder for folder in SBIN if folder not in path)]
    return {**os.environ, "LC_ALL": "C", "PATH": os.pathsep.join(wide)}
