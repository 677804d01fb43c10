"""What the keeper of a lab says to its emulator, and the answers: one datagram each.

The two share a socket pair, so that either sees at once that the other ended.
"""

from __future__ import annotations

from typing import Final

import msgspec

from netem.backend import LinkReading
from netem.spec import Duplex

MESSAGE_BYTES_MAX: Final = 64 * 1024


class PortConfig(msgspec.Struct, frozen=True):
    """One TUN device that the emulator inherits."""

    name: str
    address: str
    fd: int


class Config(msgspec.Struct, frozen=True):
    """All that an emulator is told at its start."""

    control_fd: int
    ports: tuple[PortConfig, ...]


class Set(msgspec.Struct, frozen=True, tag=True):
    """Give one port new LinkSpecs; answered with its `PortReading`."""

    number: int
    port: str
    duplex: Duplex


class Observe(msgspec.Struct, frozen=True, tag=True):
    """Ask for the `PortReading` of one port."""

    number: int
    port: str


class PortReading(msgspec.Struct, frozen=True):
    """What holds and what passed at one port; delays are means over the delivered packets."""

    link: LinkReading
    egress_delay_ms: float | None
    ingress_delay_ms: float | None


class Answer(msgspec.Struct, frozen=True):
    """What came of the request with this number."""

    number: int
    reading: PortReading


Request = Set | Observe
