"""What this machine can do for netem, found by trying, and what to do about the rest.

Each probe is one command that tries the feature inside a network namespace which
lives as long as the command: nothing of the machine's own network is touched. A
kernel loads what it has as a module when root asks for it, so that a feature which
fails here is absent, or not allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from netem.errors import MissingFeature
from netem.tc.command import Done, Procedure, look

BACKENDS: Final = ("tc", "userspace")
_IN_NAMESPACE: Final = ("unshare", "--net", "--")
_MODULES: Final = (
    "load it with `modprobe {}`; if there is no such module, install the kernel's extra modules "
    "(Debian: linux-image-amd64 in place of -cloud; Ubuntu: linux-modules-extra-$(uname -r))"
)


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that netem can use: how it is tried, what for, and how to get it."""

    name: str
    purpose: str
    remedy: str
    probe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one probe; `said` is the machine's own word where it failed."""

    feature: Feature
    present: bool
    said: str = ""


def _tool(name: str, package: str, purpose: str, *version: str) -> Feature:
    return Feature(name, purpose, f"apt-get install {package}", (name, *version))


def _in_namespace(*argv: str) -> tuple[str, ...]:
    return (*_IN_NAMESPACE, *argv)


def _sh(script: str) -> tuple[str, ...]:
    return _in_namespace("sh", "-ec", script)


FEATURES: Final = (
    _tool("ip", "iproute2", "both backends", "-V"),
    _tool("tc", "iproute2", "backend tc", "-V"),
    _tool("ethtool", "ethtool", "backend tc: loss of packets, not of 64 kB", "--version"),
    Feature(
        "namespaces",
        "lab; the probes below",
        "run netem as root; without root the kernel needs user namespaces",
        _in_namespace("true"),
    ),
    Feature(
        "user namespaces",
        "lab without root",
        "sysctl kernel.unprivileged_userns_clone=1 (Debian) or "
        "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or run netem as root",
        ("unshare", "--user", "--map-root-user", "--net", "--", "true"),
    ),
    Feature(
        "sch_netem",
        "backend tc",
        _MODULES.format("sch_netem") + "; or take the backend userspace",
        _in_namespace("tc", "qdisc", "add", "dev", "lo", "root", "netem", "limit", "1"),
    ),
    Feature(
        "seed",
        "backend tc: seed=",
        "Linux 6.6 and iproute2 6.6 or later; or leave seed= out, or take the backend userspace",
        _in_namespace("tc", "qdisc", "add", "dev", "lo", "root", "netem", "seed", "1"),
    ),
    Feature(
        "ifb",
        "backend tc: what arrives",
        _MODULES.format("ifb"),
        _in_namespace("ip", "link", "add", "name", "probe0", "type", "ifb"),
    ),
    Feature(
        "redirect",
        "backend tc: what arrives",
        _MODULES.format("sch_ingress cls_matchall act_mirred"),
        _sh(
            "tc qdisc add dev lo ingress && tc filter add dev lo parent ffff: matchall "
            "action mirred egress redirect dev lo"
        ),
    ),
    Feature(
        "tun",
        "backend userspace",
        _MODULES.format("tun") + "; in a container give it /dev/net/tun",
        _in_namespace("ip", "tuntap", "add", "dev", "probe0", "mode", "tun"),
    ),
    Feature(
        "veth",
        "wires between namespaces",
        _MODULES.format("veth"),
        _in_namespace("ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"),
    ),
    Feature(
        "bbr",
        "good throughput on lossy links (measured: docs/netem.md)",
        _MODULES.format("tcp_bbr"),
        _in_namespace("sysctl", "-qw", "net.ipv4.tcp_congestion_control=bbr"),
    ),
    Feature(
        "htb",
        "shaping of single flows, by hand",
        _MODULES.format("sch_htb"),
        _in_namespace("tc", "qdisc", "add", "dev", "lo", "root", "htb"),
    ),
    Feature(
        "nft",
        "cutting links by a firewall rule, by hand",
        "apt-get install nftables, and " + _MODULES.format("nf_tables"),
        _in_namespace("nft", "add", "table", "inet", "probe"),
    ),
)
# What each backend can't do without.
NEEDS: Final = {
    "tc": frozenset({"ip", "tc", "ethtool", "sch_netem"}),
    "userspace": frozenset({"ip", "tun", "namespaces"}),
}


def examine(features: Sequence[Feature] = FEATURES) -> Procedure[list[Finding]]:
    """Try every feature, in order."""
    findings = []
    for feature in features:
        done = yield look(*feature.probe)
        findings.append(Finding(feature, done.returncode == 0, _said(done)))
    return findings


def choose(findings: Sequence[Finding], wanted: str | None = None) -> str:
    """The backend to take: `wanted`, or the first of BACKENDS that has all it needs.

    Raises:
        MissingFeature: it, or every one, lacks something; the message says what to do.
    """
    lacks = {name: missing(findings, name) for name in BACKENDS}
    for name in (wanted,) if wanted is not None else BACKENDS:
        if not lacks[name]:
            return name
    names = (wanted,) if wanted is not None else BACKENDS
    told = "; ".join(
        f"{name} lacks {', '.join(f.feature.name for f in lacks[name])} "
        f"({lacks[name][0].feature.remedy})"
        for name in names
    )
    raise MissingFeature("no_backend", told)


def missing(findings: Sequence[Finding], backend: str) -> list[Finding]:
    """What `backend` needs and was not found."""
    return [f for f in findings if not f.present and f.feature.name in NEEDS[backend]]


def _said(done: Done) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[0] if lines and done.returncode != 0 else ""
