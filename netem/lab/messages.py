"""What is said between a lab's keeper and whoever drives the lab: one JSON line each way."""

from __future__ import annotations

import msgspec

from netem.backend import LinkReading
from netem.errors import BadSpec, MissingFeature, NetemError, Refused
from netem.lab.topology import Topology
from netem.spec import Duplex


class Order(msgspec.Struct, frozen=True):
    """What a keeper is started for. `owner_pid` 0: nobody's end ends the lab, only its time."""

    topology: Topology
    lab_id: str
    folder: str
    owner_pid: int


class Entrance(msgspec.Struct, frozen=True):
    """How a process gets into one host: descriptors that the keeper holds."""

    net_fd: int
    uts_fd: int
    net_id: int


class Record(msgspec.Struct, frozen=True):
    """What stands in a lab's folder: enough to get in, and to clean up without the keeper.

    `keeper_start_ticks` and `boot_id` tell the keeper from a process that got its id later.
    """

    topology: Topology
    lab_id: str
    backend: str
    owner_pid: int
    keeper_pid: int
    keeper_start_ticks: int
    boot_id: str
    own_user_namespace: bool
    expires_s: float
    entrances: dict[str, Entrance]


class Observe(msgspec.Struct, frozen=True, tag=True):
    """Ask for the state of every link."""


class Change(msgspec.Struct, frozen=True, tag=True):
    """Give one host's link new LinkSpecs; it stays cut if it is cut."""

    host: str
    link: Duplex


class Cut(msgspec.Struct, frozen=True, tag=True):
    """Let nothing through to or from a host."""

    host: str


class Heal(msgspec.Struct, frozen=True, tag=True):
    """Give a host its link back, as it was last requested."""

    host: str


class Renew(msgspec.Struct, frozen=True, tag=True):
    """Let the lab live for `ttl_s` from now on."""

    ttl_s: float


class Down(msgspec.Struct, frozen=True, tag=True):
    """End the lab and everything in it; answered when that is done."""


Request = Observe | Change | Cut | Heal | Renew | Down


class LinkState(msgspec.Struct, frozen=True):
    """One host's link: what was asked for, and what there is. Both as this host sees it.

    `held_s` is for how long it has been like this, and what the counters and the
    mean delays are over. A backend that can't see delays gives None.
    """

    requested: Duplex
    is_cut: bool
    reading: LinkReading
    egress_delay_ms: float | None
    ingress_delay_ms: float | None
    held_s: float


class State(msgspec.Struct, frozen=True, tag=True):
    """The lab as it is; `ttl_s` is how long it still lives."""

    links: dict[str, LinkState]
    ttl_s: float


class Done(msgspec.Struct, frozen=True, tag=True):
    """It was done; `at_s` is the monotonic time when it was."""

    at_s: float


class Fault(msgspec.Struct, frozen=True, tag=True):
    """It was not done, and why."""

    kind: str
    code: str
    message: str

    @classmethod
    def of(cls, problem: Exception) -> Fault:
        """What to say of an error."""
        if isinstance(problem, NetemError):
            return cls(type(problem).__name__, problem.code, str(problem))
        # The name, too: a KeyError's text is its key.
        name = type(problem).__name__
        return cls(name, "internal", f"{name}: {problem}")

    def error(self) -> NetemError:
        """The error at the other end."""
        if self.kind == BadSpec.__name__:
            return BadSpec(self.message)
        kinds = {kind.__name__: kind for kind in (Refused, MissingFeature)}
        return kinds.get(self.kind, NetemError)(self.code, self.message)


Answer = State | Done | Fault
