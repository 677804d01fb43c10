"""An interface as the kernel shows it: whose queueing disciplines it has, and what they say.

Everything that netem makes carries a sign of its own, so that a later process,
or a person, knows what is ours: the handles `HANDLES`, the preference `PREF` of
the one filter, the name of the IFB device, and the record in the alias.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Final

from netem.errors import Refused
from netem.tc.command import Procedure, look, must
from netem.tc.readback import Json
from netem.tc.record import Record

HANDLES: Final = ("4c4b:", "4c4c:")
"""Ours: a fresh qdisc takes the other one, so that it replaces the old in one step."""
INGRESS_HANDLE: Final = "ffff:"
"""The only handle that the kernel gives to an ingress qdisc."""
PREF: Final = 19531
"""0x4c4b."""
OFFLOADS: Final = {
    "tcp-segmentation-offload": "tso",
    "generic-segmentation-offload": "gso",
    "generic-receive-offload": "gro",
    "large-receive-offload": "lro",
}
"""What joins packets into one of up to 64 kB, which netem would lose or delay as one.

TCP does it in software too, and has done whatever these say since Linux 4.17; only the
interface's `gso_max_segs` keeps it from it. Measured on Linux 6.1 with the features off:
105 segments sent again for 70 drops.
"""

_NAME: Final = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]{0,14}")


@dataclass(frozen=True, slots=True)
class State:
    """One interface before a change.

    `root` is the root qdisc, None where it is the kernel's default; `has_ingress` says
    that somebody has an ingress qdisc, `redirects` that ours leads to our IFB device
    `ifb`; `ifb_root` is that device's qdisc. `offload` are the features of OFFLOADS
    that are on and can be switched; `gso_segments` are the segments that TCP may hand over
    as one packet (0 where `ip` does not tell).
    """

    interface: str
    index: int
    mtu_bytes: int
    alias: str = ""
    root: Json | None = None
    has_ingress: bool = False
    redirects: bool = False
    has_ifb: bool = False
    ifb_root: Json | None = None
    offload: tuple[str, ...] = ()
    gso_segments: int = 0

    @property
    def ifb(self) -> str:
        """Name of the device that arriving packets take a turn through."""
        return f"netem-ifb{self.index}"

    @property
    def record(self) -> Record | None:
        """What we wrote down, None where nothing is ours."""
        return Record.parse(self.alias)

    @property
    def is_ours(self) -> bool:
        """True if anything of ours is there."""
        parts = (self.record is not None, owned(self.root), self.redirects, self.has_ifb)
        return any(parts)

    def refuse_foreign(self) -> None:
        """Raise Refused if a qdisc of somebody else is where ours would go."""
        if self.root is not None and not owned(self.root):
            kind, handle = self.root.get("kind"), self.root.get("handle")
            raise Refused(
                "foreign_qdisc",
                f"{self.interface} has a root qdisc that is not ours: {kind} {handle} (ours are "
                f"{' and '.join(HANDLES)}); if nobody needs it, remove it first: "
                f"tc qdisc del dev {self.interface} root",
            )
        if self.has_ingress and not self.redirects:
            raise Refused(
                "foreign_qdisc",
                f"{self.interface} has an ingress qdisc that is not ours (our filter has pref "
                f"{PREF}); if nobody needs it, remove it first: "
                f"tc qdisc del dev {self.interface} ingress",
            )


def owned(qdisc: Json | None) -> bool:
    """True for a netem qdisc under one of our handles."""
    return qdisc is not None and qdisc.get("kind") == "netem" and qdisc.get("handle") in HANDLES


def read_state(interface: str, *, offload: bool = True) -> Procedure[State]:
    """Look at an interface; without `offload`, not at its features.

    Raises:
        Refused: there is no such interface.
        CommandFailed: a tool is missing or failed.
    """
    if _NAME.fullmatch(interface) is None:
        raise Refused("no_interface", f"{interface!r} is no name of an interface: see `ip link`")
    # All at once: two commands see the interface and its IFB device.
    links = {link["ifname"]: link for link in (yield from _json("ip", "-d", "-j", "link", "show"))}
    if interface not in links:
        raise Refused("no_interface", f"there is no interface {interface}: see `ip link`")
    link = links[interface]
    state = State(
        interface=interface,
        index=int(link["ifindex"]),
        mtu_bytes=int(link["mtu"]),
        alias=str(link.get("ifalias", "")),
        gso_segments=int(link.get("gso_max_segs", 0)),
    )
    qdiscs = yield from _json("tc", "-j", "-s", "qdisc", "show")
    here = [qdisc for qdisc in qdiscs if qdisc.get("dev") == interface]
    has_ingress = any(qdisc.get("kind") in ("ingress", "clsact") for qdisc in here)
    filters = (yield from _filters(interface)) if has_ingress else []
    return replace(
        state,
        root=_root(here),
        has_ingress=has_ingress,
        redirects=bool(filters) and all(f.get("pref") == PREF for f in filters),
        has_ifb=state.ifb in links,
        ifb_root=_root([qdisc for qdisc in qdiscs if qdisc.get("dev") == state.ifb]),
        # Once our note is there, they are off, and it says which to switch on again.
        offload=(yield from _offload(interface)) if offload and state.record is None else (),
    )


def read_changed() -> Procedure[list[str]]:
    """Names of the interfaces that carry our note."""
    links = yield from _json("ip", "-j", "link", "show")
    return [link["ifname"] for link in links if Record.parse(link.get("ifalias", "")) is not None]


def _root(qdiscs: list[Json]) -> Json | None:
    """The root qdisc unless it is the kernel's own, whose handle is 0."""
    roots = [q for q in qdiscs if q.get("root") and q.get("handle") != "0:"]
    return roots[0] if roots else None


def _filters(interface: str) -> Procedure[list[Json]]:
    return (yield from _json("tc", "-j", "filter", "show", "dev", interface, "ingress"))


def _offload(interface: str) -> Procedure[tuple[str, ...]]:
    text = yield from must(look("ethtool", "-k", interface))
    on = re.findall(r"^([a-z-]+): on$", text, re.MULTILINE)
    return tuple(short for name, short in OFFLOADS.items() if name in on)


def _json(*argv: str) -> Procedure[list[Json]]:
    text = yield from must(look(*argv))
    found: list[Json] = json.loads(text or "[]")
    return found
