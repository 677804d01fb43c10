"""What can go wrong for a program that uses the client: one root, five branches.

Each names the value, the limit and the next step in its message, and carries a
short stable `code` (the server's own where the server said it, see
`docs/api.md`). `FailedImage` is about one image; the others end a whole call.
"""

from __future__ import annotations


class ClientError(Exception):
    """Root of every error that the client raises on purpose."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BadInput(ClientError, ValueError):
    """The caller asked for something outside the limits; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_input", message)


class Unreachable(ClientError):
    """No server answered for as long as the call has patience."""


class Refused(ClientError):
    """A server answered, and it takes no images: not now, not from us, or it is no Lookout."""


class TimedOut(ClientError):
    """The deadline of the call passed."""

    def __init__(self, message: str) -> None:
        super().__init__("deadline", message)


class FailedImage(ClientError):
    """One image has no result; the others go on."""
