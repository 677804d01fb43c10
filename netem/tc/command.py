"""Commands as data, and procedures that ask for them.

A procedure is a generator: it yields a `Command` and is sent what came of it.
So the same procedure runs on this machine (`runner.py`), over SSH
(`netem/remote/`) and in a test that plays the kernel, and none of it does I/O.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from netem.errors import CommandFailed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command:
    """One command line; `changes` is False for one that only looks."""

    argv: tuple[str, ...]
    changes: bool = False

    def __str__(self) -> str:
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command; 127 is a command that is not there, as in a shell."""

    returncode: int = 0
    stdout: str = ""
    stderr: str = ""


Procedure = Generator[Command, Done, T]


def look(*argv: str) -> Command:
    """A command that changes nothing."""
    return Command(argv)


def change(*argv: str) -> Command:
    """A command that changes something."""
    return Command(argv, changes=True)


def must(command: Command) -> Procedure[str]:
    """Run `command` and return what it wrote.

    Raises:
        CommandFailed: its status is not 0.
    """
    done = yield command
    if done.returncode != 0:
        raise CommandFailed(command.argv, done.returncode, done.stderr or done.stdout)
    return done.stdout
