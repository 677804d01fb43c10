"""The one exception root and its three branches.

Every error that Lookout raises on purpose says whose fault it is: the peer's,
ours, or the environment's. Fields travel on the exception so that a log line
and a reply can be built from it; the message gives the value, the limit and
the next step.
"""

from __future__ import annotations


class LookoutError(Exception):
    """Root of every error that Lookout raises on purpose."""


class PeerFault(LookoutError):
    """The other end of a connection broke the protocol, or was refused by it.

    `code` is a short stable identifier; `reason` is a sentence for a person.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class LocalFault(LookoutError):
    """Our own code asked for something that its contract forbids: a bug."""


class EnvironmentFault(LookoutError):
    """The machine, its files, its network or the user's flags are in the way.

    `code` is a short stable identifier; `reason` names the value, the limit
    and what to do next.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Rejected(PeerFault):
    """The master answered our handshake with `Reject`; the code says whether to try again."""


class ConnectionClosed(EnvironmentFault):
    """The connection ended, by either end or by the network; `reason` says how."""

    def __init__(self, reason: str) -> None:
        super().__init__("connection_closed", reason)
