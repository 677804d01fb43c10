"""`netem lab …`: build a lab, look at it, run commands in it, break its links, end it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from netem.errors import BadSpec, NetemError
from netem.grammar import parse
from netem.lab import folder
from netem.lab.conductor import perform
from netem.lab.display import table_of
from netem.lab.lab import Lab, down
from netem.lab.topology import BACKENDS, Topology, star, topology_of
from netem.spec import Duplex
from netem.timeline import Executed, timeline_of

FILE_BYTES_MAX: Final = 4 << 20
_UP_HELP: Final = """\
A lab is a master with workers and clients around it, each in a network namespace of
its own, with a link of its own to the others. It ends with `netem lab down`, after its
time to live, or with the process that --owner names.
"""


def add_parser(commands: Any) -> None:
    """Add `lab` to the commands of `netem`; each verb sets `run`, a function of the arguments."""
    lab = commands.add_parser("lab", help="a cluster on this machine, with links to break")
    verbs = lab.add_subparsers(metavar="COMMAND", required=True)
    _add_up(verbs)
    _add_exec(verbs)
    _add_status(verbs)
    _add_set(verbs)
    for verb, run, what in (
        ("cut", _cut, "let nothing through to or from a host"),
        ("heal", _heal, "give a host its link back"),
    ):
        one = _verb(verbs, verb, run, what)
        one.add_argument("host", metavar="HOST")
    play = _verb(verbs, "play", _play, "carry out a timeline of changes, on schedule")
    play.add_argument("file", metavar="FILE", type=Path, help="TOML with [[step]] tables")
    forward = _verb(verbs, "forward", _forward, "reach a port of a host from this machine")
    forward.add_argument("host", metavar="HOST")
    forward.add_argument("port", metavar="PORT", type=int)
    forward.add_argument("local", metavar="LOCAL", type=int, nargs="?", default=0)
    end = _verb(verbs, "down", _down, "end a lab, or what a crash left of it")
    _add_name(end)
    end.add_argument("--all", action="store_true", help="every lab of this user")


def _verb(verbs: Any, name: str, run: Any, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what)
    parser.add_argument("--lab", metavar="NAME", help="which lab (the only one there is)")
    parser.set_defaults(run=run)
    return parser


def _add_name(verb: argparse.ArgumentParser) -> None:
    """The lab as a bare word, too, where there is no other: as the messages write it."""
    verb.add_argument(
        "lab", metavar="NAME", nargs="?", default=argparse.SUPPRESS, help="the same as --lab NAME"
    )


def _add_up(verbs: Any) -> None:
    up = verbs.add_parser("up", help="build a lab", description=_UP_HELP)
    up.set_defaults(run=_up)
    up.add_argument("file", metavar="FILE", nargs="?", type=Path, help="TOML with its hosts")
    up.add_argument("--name", help="what to call it (the file's name, or star)")
    up.add_argument("--workers", type=int, metavar="N", help="without a file: workers (2)")
    up.add_argument("--clients", type=int, metavar="N", help="without a file: clients (0)")
    up.add_argument("--link", metavar="SPEC", help="of every worker and client, both ways")
    up.add_argument("--backend", choices=BACKENDS, help="what does it (auto)")
    up.add_argument("--ttl", type=float, metavar="S", help="seconds to live (4 hours)")
    up.add_argument("--owner", type=int, metavar="PID", default=0, help="end with this process")


def _add_exec(verbs: Any) -> None:
    run = _verb(verbs, "exec", _exec, "run a command in a host")
    run.add_argument("host", metavar="HOST")
    run.add_argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER)


def _add_status(verbs: Any) -> None:
    status = _verb(verbs, "status", _status, "what is requested, and what is observed")
    _add_name(status)
    status.add_argument("--json", action="store_true", help="for programs")


def _add_set(verbs: Any) -> None:
    change = _verb(verbs, "set", _set, "give a host's link a new LinkSpec; 0 makes it perfect")
    change.add_argument("host", metavar="HOST")
    change.add_argument("spec", metavar="KEY=VALUE", nargs="+", help="such as loss=10%% delay=50ms")
    one = change.add_mutually_exclusive_group()
    one.add_argument("--egress", action="store_true", help="only what the host sends")
    one.add_argument("--ingress", action="store_true", help="only what the host gets")


def _up(options: argparse.Namespace) -> int:
    topology = _topology(options)
    lab = Lab.up(topology, owner_pid=options.owner)
    print(f"lab {lab.name} is up ({lab.record.backend}), for {topology.ttl_s:.0f} s:")
    for host in topology.hosts:
        print(f"  {host.name:12} {host.address:14} {_text(host.link)}")
    print(f"netem lab exec {topology.hosts[-1].name} COMMAND … runs a command in a host")
    return 0


def _topology(options: argparse.Namespace) -> Topology:
    if options.file is None:
        table: dict[str, Any] = {}
    elif options.workers is not None or options.clients is not None or options.link:
        raise BadSpec("--workers, --clients and --link describe a lab, and so does the file: one")
    else:
        table = _toml(options.file)
    for key in ("name", "workers", "clients", "backend"):
        if getattr(options, key) is not None:
            table[key] = getattr(options, key)
    if options.ttl is not None:
        table["ttl_s"] = options.ttl
    if options.link:
        named = topology_of(table)
        link = Duplex.both(parse(options.link))
        counts = {k: table[k] for k in ("workers", "clients") if k in table}
        return star(named.name, **counts, link=link, backend=named.backend, ttl_s=named.ttl_s)
    return topology_of(table, name=options.file.stem if options.file else "star")


def _exec(options: argparse.Namespace) -> int:
    lab = _lab(options)
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        raise BadSpec(f"nothing to run: netem lab exec {options.host} COMMAND …")
    command = lab.command(options.host, argv)
    sys.stdout.flush()
    # This process becomes the command: signals and exit status are its own.
    os.execvp(command[0], command)  # noqa: S606


def _status(options: argparse.Namespace) -> int:
    lab = _lab(options)
    state = lab.state()
    if options.json:
        print(msgspec.json.encode(state).decode())
        return 0
    owner = f"process {lab.record.owner_pid}" if lab.record.owner_pid else "nobody"
    print(
        f"lab {lab.name}: {lab.record.backend}, owner {owner}, {state.ttl_s:.0f} s to live, "
        f"{len(lab.pids())} processes; requested / observed, as each host sees its link"
    )
    Console(width=None if sys.stdout.isatty() else 160).print(table_of(state))
    return 0


def _set(options: argparse.Namespace) -> int:
    lab = _lab(options)
    spec = parse(" ".join(options.spec))
    now = lab.status().get(options.host)
    link = Duplex.both(spec)
    if now is not None and options.egress:
        link = Duplex(spec, now.requested.ingress)
    elif now is not None and options.ingress:
        link = Duplex(now.requested.egress, spec)
    lab.set(options.host, link)
    print(f"{options.host}: {_text(link)}")
    return 0


def _cut(options: argparse.Namespace) -> int:
    _lab(options).cut(options.host)
    print(f"{options.host} is cut off; netem lab heal {options.host} undoes it")
    return 0


def _heal(options: argparse.Namespace) -> int:
    lab = _lab(options)
    lab.heal(options.host)
    print(f"{options.host}: {_text(lab.status()[options.host].requested)}")
    return 0


def _play(options: argparse.Namespace) -> int:
    timeline = timeline_of(_toml(options.file))
    lab = _lab(options)
    timeline.check_hosts({host.name for host in lab.topology.hosts})

    def show(done: Executed) -> None:
        late_ms = done.late_s * 1e3
        print(f"{done.step.at_s:9.3f} s  +{late_ms:5.1f} ms  {done.step}", flush=True)

    perform(timeline, lab, tell=show)
    return 0


def _forward(options: argparse.Namespace) -> int:
    with _lab(options).forward(options.host, options.port, options.local) as port:
        print(f"127.0.0.1:{port} is {options.host}:{options.port}; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


def _down(options: argparse.Namespace) -> int:
    named = [options.lab] if options.lab else folder.names()
    if len(named) > 1 and not options.all:
        named = [_only_name()]
    if not named:
        print("there is no lab here")
    for name in named:
        print(f"lab {name} is gone" if down(name) else f"there is no lab {name}")
    return 0


def _lab(options: argparse.Namespace) -> Lab:
    return Lab.find(options.lab or _only_name())


def _only_name() -> str:
    names = folder.names()
    if len(names) == 1:
        return names[0]
    if not names:
        raise NetemError("no_lab", "there is no lab here: `netem lab up` makes one")
    raise BadSpec(f"there are several labs: say which with --lab: {', '.join(names)}")


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(FILE_BYTES_MAX).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise BadSpec(f"{path} can't be read: {problem}") from problem


def _text(link: Duplex) -> str:
    if link.egress == link.ingress:
        return "perfect" if link.egress.is_perfect else f"{link.egress} (each way)"
    return f"egress: {link.egress}, ingress: {link.ingress}"
