"""What we changed on an interface, in a place that lives as long as the change: its alias.

`ip link` shows it. It survives our process, it goes with the interface, and it
is what `clear` undoes, so that no file can be lost or out of date. An alias that
somebody else set is kept inside and put back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from netem.spec import Distribution

ALIAS_BYTES_MAX: Final = 255
_FORM: Final = re.compile(
    r"netem mtu=(?P<mtu>\d+) offload=(?P<offload>[a-z,]*) (?:segments=(?P<segments>\d+) )?"
    r"shape=(?P<egress>[a-z]+),(?P<ingress>[a-z]+) was=(?P<alias>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Record:
    """The interface before us, and the shapes of jitter, which the kernel doesn't tell.

    `offload` are the features that were on and are off now; `gso_segments` is the largest
    number of segments that the interface took as one packet, 0 where it was left alone.
    """

    mtu_bytes: int
    offload: tuple[str, ...] = ()
    egress_shape: Distribution = Distribution.UNIFORM
    ingress_shape: Distribution = Distribution.UNIFORM
    alias: str = ""
    gso_segments: int = 0

    def __str__(self) -> str:
        """The alias that holds it."""
        segments = f"segments={self.gso_segments} " if self.gso_segments else ""
        return (
            f"netem mtu={self.mtu_bytes} offload={','.join(self.offload)} {segments}"
            f"shape={self.egress_shape},{self.ingress_shape} was={self.alias}"
        )

    @classmethod
    def parse(cls, alias: str) -> Record | None:
        """The record in an alias, None if somebody else wrote it."""
        found = _FORM.fullmatch(alias)
        if found is None:
            return None
        return cls(
            mtu_bytes=int(found["mtu"]),
            offload=tuple(filter(None, found["offload"].split(","))),
            egress_shape=Distribution(found["egress"]),
            ingress_shape=Distribution(found["ingress"]),
            alias=found["alias"],
            gso_segments=int(found["segments"] or 0),
        )
