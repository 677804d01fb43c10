"""What every backend promises, and the readings it gives.

One contract suite (`tests/netem_root/`) runs against every backend:

- `apply` puts both directions in place, or raises and leaves what was there. Then it
  reads back what the kernel (or the emulator) holds and compares; a difference raises
  `Mismatch`. Applying again replaces; counters may start anew.
- `clear` takes away exactly what `apply` made and nothing else; clearing a link that is
  not ours is no error.
- Nothing goes on after a failed command.
- A LinkSpec that the backend can't do raises `MissingFeature` before anything changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from netem.spec import Duplex, LinkSpec


@dataclass(frozen=True, slots=True)
class Counters:
    """Packets of one direction since the LinkSpec took hold.

    `dropped_packets` were lost by `loss` or `bursts`, or found the queue full.
    `queued_packets` wait for their delay or their turn now. A duplicate counts as
    delivered once more.
    """

    delivered_packets: int = 0
    delivered_bytes: int = 0
    dropped_packets: int = 0
    queued_packets: int = 0

    @property
    def offered_packets(self) -> int:
        """All that entered the direction, copies included."""
        return self.delivered_packets + self.dropped_packets + self.queued_packets

    @property
    def observed_loss(self) -> float | None:
        """Fraction of the offered packets that was dropped; None before the first packet."""
        offered = self.offered_packets
        return self.dropped_packets / offered if offered else None

    def since(self, before: Counters) -> Counters:
        """What came after `before`, an earlier reading of the same direction."""
        return Counters(
            self.delivered_packets - before.delivered_packets,
            self.delivered_bytes - before.delivered_bytes,
            self.dropped_packets - before.dropped_packets,
            self.queued_packets,
        )


@dataclass(frozen=True, slots=True)
class DirectionReading:
    """One direction as it is: the LinkSpec that holds, and what passed."""

    spec: LinkSpec
    counters: Counters


@dataclass(frozen=True, slots=True)
class LinkReading:
    """Both directions of one link, as the host at its near end sees them."""

    egress: DirectionReading
    ingress: DirectionReading

    @property
    def duplex(self) -> Duplex:
        """The LinkSpecs alone."""
        return Duplex(egress=self.egress.spec, ingress=self.ingress.spec)


class Backend(Protocol):
    """Something that makes links bad. A link is named by the interface of its near end."""

    @property
    def name(self) -> str:
        """Short name for tables and `--backend`: `tc`, `userspace`."""
        ...

    def apply(self, link: str, duplex: Duplex) -> LinkReading:
        """Make `link` as requested, and return what was read back.

        Raises:
            Refused: the link belongs to somebody else, or carries the user's own way in.
            MissingFeature: the kernel or the backend can't do this LinkSpec.
            CommandFailed: a step failed; what it had begun was undone.
            Mismatch: what was read back differs from what was requested; it was undone.
        """
        ...

    def observe(self, link: str) -> LinkReading | None:
        """What holds on `link` and what passed; None if nothing of ours is there."""
        ...

    def clear(self, link: str) -> bool:
        """Take away what `apply` made; False if there was nothing.

        Raises:
            CommandFailed: a step failed.
        """
        ...
