"""What can go wrong while links are emulated: one root, and whose fault it is.

Each error carries a short stable `code`, and its message gives the value, the
limit and the next step. `BadSpec` and `Refused` are about what was asked for;
`MissingFeature`, `CommandFailed` and `Mismatch` are about the machine.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence


class NetemError(Exception):
    """Root of every error that netem raises on purpose."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BadSpec(NetemError, ValueError):
    """A value that no link can have, or text that is no LinkSpec; nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_spec", message)


class Refused(NetemError):
    """It would change what is not ours, or cut the user off; nothing was changed."""


class MissingFeature(NetemError):
    """The kernel or a tool lacks what the LinkSpec needs; the message says how to get it."""


class CommandFailed(NetemError):
    """A command ended with an error; what it had begun was undone as far as that goes."""

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        said = output.strip() or "it said nothing"
        super().__init__(
            "command_failed", f"`{shlex.join(argv)}` ended with status {returncode}: {said}"
        )
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output


class Mismatch(NetemError):
    """The kernel says that the link is not as requested."""

    def __init__(self, where: str, requested: str, found: str) -> None:
        super().__init__("mismatch", f"{where}: requested {requested}, but the kernel says {found}")
        self.where = where
        self.requested = requested
        self.found = found
