"""The hosts of an inventory file: where they are, and which interface of theirs is the link.

[defaults]
user = "me"
interface = "eth1"

[hosts.node-1]
address = "192.0.2.11"

[hosts.node-2]
address = "192.0.2.12"
interface = "enp3s0"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from netem.errors import BadSpec

HOSTS_MAX: Final = 256
SSH_PORT: Final = 22


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `sudo` is for users other than root, whose sudo asks for no password."""

    name: str
    address: str
    interface: str
    user: str = "root"
    port: int = SSH_PORT
    sudo: bool = False
    key_file: str = ""
    known_hosts: str = ""


_KEYS: Final = {f.name: f.type for f in fields(Host) if f.name != "name"}
_TYPES: Final = {"str": str, "int": int, "bool": bool}


def read_inventory(text: str, only: Sequence[str] = ()) -> tuple[Host, ...]:
    """The hosts of a TOML text, or those of them that `only` names.

    Raises:
        BadSpec: it is no TOML, a key is unknown or of another type, or a host lacks one.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSpec(f"the inventory is no TOML: {error}") from error
    hosts, defaults = table.pop("hosts", {}), table.pop("defaults", {})
    if table or not isinstance(hosts, dict) or not isinstance(defaults, dict):
        raise BadSpec(f"the inventory has {sorted(table)}; it takes [defaults] and [hosts.NAME]")
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise BadSpec(f"the inventory has {len(hosts)} hosts; it takes 1 to {HOSTS_MAX}")
    if unknown := sorted(set(only) - set(hosts)):
        raise BadSpec(f"the inventory has no host {unknown[0]}; there are {', '.join(hosts)}")
    return tuple(_host(n, {**defaults, **own}) for n, own in hosts.items() if not only or n in only)


def _host(name: str, given: Mapping[str, Any]) -> Host:
    for key, value in given.items():
        if key not in _KEYS:
            raise BadSpec(f"host {name}: unknown key {key!r}; a host has {', '.join(_KEYS)}")
        if type(value) is not _TYPES[str(_KEYS[key])]:
            raise BadSpec(f"host {name}: {key} = {value!r} must be of type {_KEYS[key]}")
    for key in ("address", "interface"):
        if not given.get(key):
            raise BadSpec(f"host {name}: {key} is missing: say it there or under [defaults]")
    if not 1 <= given.get("port", SSH_PORT) <= 65_535:
        raise BadSpec(f"host {name}: port = {given['port']} is out of range: from 1 to 65535")
    return Host(name=name, **given)
