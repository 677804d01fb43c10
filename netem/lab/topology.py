"""Which hosts a lab has, how they are called, and what their links are. Pure.

A star: every host has one link of its own to the middle. Addresses follow from
names: the master is 10.77.0.1, `worker-3` 10.77.1.3 and `client-1` 10.77.2.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from netem.errors import BadSpec
from netem.grammar import from_table
from netem.spec import Duplex

MASTER: Final = "master"
PREFIX_BITS: Final = 16
HOSTS_PER_KIND_MAX: Final = 100
NAME_MAX: Final = 32
TTL_DEFAULT_S: Final = 4 * 3600.0
TTL_MAX_S: Final = 30 * 24 * 3600.0
BACKENDS: Final = ("auto", "tc", "userspace")
_SUBNET: Final = "10.77"
_KINDS: Final = {"worker": 1, "client": 2}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of the lab; `link` is as this host sees it."""

    name: str
    address: str
    link: Duplex = field(default_factory=Duplex)


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab as requested.

    Raises:
        BadSpec: a name that no lab can have, or one host twice.
    """

    name: str
    hosts: tuple[Host, ...]
    backend: str = "auto"
    ttl_s: float = TTL_DEFAULT_S

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > NAME_MAX:
            raise BadSpec(
                f"{self.name!r} is no name of a lab: up to {NAME_MAX} of a-z, 0-9 and -, like star"
            )
        if self.backend not in BACKENDS:
            raise BadSpec(f"backend {self.backend!r} is unknown; there are {', '.join(BACKENDS)}")
        if not 0 < self.ttl_s <= TTL_MAX_S:
            raise BadSpec(f"ttl_s={self.ttl_s} is out of range: above 0 and up to {TTL_MAX_S:.0f}")
        names = [host.name for host in self.hosts]
        if len(set(names)) != len(names) or not names:
            raise BadSpec(f"hosts {names}: a lab has at least one, and each name once")

    def host(self, name: str) -> Host:
        """The host called `name`.

        Raises:
            BadSpec: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise BadSpec(f"lab {self.name} has no host {name!r}; it has {known}")


def star(
    name: str = "star",
    *,
    workers: int = 2,
    clients: int = 0,
    link: Duplex | None = None,
    links: Mapping[str, Duplex] | None = None,
    backend: str = "auto",
    ttl_s: float = TTL_DEFAULT_S,
) -> Topology:
    """A master with workers and clients around it.

    `link` is that of every worker and client, `links` names exceptions. The
    master's own link is perfect unless `links` has it: what a packet from a
    worker meets is then the worker's link alone.

    Raises:
        BadSpec: too many hosts, or a link for a host that is not there.
    """
    names = [MASTER, *_numbered("worker", workers), *_numbered("client", clients)]
    exceptions = links or {}
    if unknown := sorted(set(exceptions) - set(names)):
        raise BadSpec(f"a link for {', '.join(unknown)}, and the hosts are {', '.join(names)}")
    common = {name: link or Duplex() for name in names if name != MASTER}
    chosen = {MASTER: Duplex(), **common, **exceptions}
    hosts = tuple(Host(name, _address(name), chosen[name]) for name in names)
    return Topology(name, hosts, backend, ttl_s)


def topology_of(table: Mapping[str, Any], name: str = "star") -> Topology:
    """The lab of a TOML table: `workers`, `clients`, `[link]` and `[hosts.NAME]` for exceptions.

    A link is a LinkSpec for both directions; in its tables `egress` and `ingress`
    stands what differs.

    Raises:
        BadSpec: an unknown key, or a value out of its limits.
    """
    known = {"name", "workers", "clients", "backend", "ttl_s", "link", "hosts"}
    if unknown := sorted(set(table) - known):
        raise BadSpec(f"unknown key {unknown[0]!r} of a lab; it has {', '.join(sorted(known))}")
    link = duplex_of(_table(table, "link"))
    hosts = _table(table, "hosts")
    return star(
        str(table.get("name", name)),
        workers=_count(table, "workers", 2),
        clients=_count(table, "clients", 0),
        link=link,
        links={host: duplex_of(_table(hosts, host)) for host in hosts},
        backend=str(table.get("backend", "auto")),
        ttl_s=_seconds(table.get("ttl_s", TTL_DEFAULT_S)),
    )


def duplex_of(table: Mapping[str, Any]) -> Duplex:
    """Both directions from one table.

    Raises:
        BadSpec: as `from_table`.
    """
    common = {key: value for key, value in table.items() if key not in ("egress", "ingress")}
    return Duplex(
        egress=from_table({**common, **_table(table, "egress")}),
        ingress=from_table({**common, **_table(table, "ingress")}),
    )


def hosts_file(topology: Topology) -> str:
    """`/etc/hosts` as every host of the lab sees it."""
    lines = [f"{host.address} {host.name}" for host in topology.hosts]
    return "\n".join(["127.0.0.1 localhost", "::1 localhost", *lines, ""])


def _numbered(kind: str, count: int) -> list[str]:
    if not 0 <= count <= HOSTS_PER_KIND_MAX:
        raise BadSpec(f"{kind}s = {count} is out of range: from 0 to {HOSTS_PER_KIND_MAX}")
    return [f"{kind}-{number}" for number in range(1, count + 1)]


def _address(name: str) -> str:
    if name == MASTER:
        return f"{_SUBNET}.0.1"
    kind, _, number = name.partition("-")
    return f"{_SUBNET}.{_KINDS[kind]}.{number}"


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise BadSpec(f'{key} = {value!r} is no table: write it like {key} = {{ loss = "10%" }}')
    return value


def _count(table: Mapping[str, Any], key: str, default: int) -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadSpec(f"{key} = {value!r} is no whole number")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadSpec(f"ttl_s = {value!r} is no number of seconds")
    return float(value)
