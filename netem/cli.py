"""The command `netem`: links of this machine, of a lab, and of remote hosts."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console

from netem import doctor
from netem.display import findings_json, findings_table, readings_json, readings_table
from netem.errors import BadSpec, MissingFeature, NetemError
from netem.flags import add_spec, duplex_of
from netem.ssh_session import ssh_connection
from netem.tc.backend import TcBackend
from netem.tc.command import Command
from netem.tc.runner import LocalRunner, drive

PARTS: Final = ("lab", "remote")
"""Packages whose `cli.add_parser(commands)` adds commands."""
EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status: 1 for what failed, 2 for what was asked wrongly."""
    args = build_parser().parse_args(arguments)
    try:
        status: int = args.run(args)
    except NetemError as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        print(f"netem: {error.message}{notes}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, BadSpec) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


def build_parser() -> argparse.ArgumentParser:
    """The parser of `netem` and all its commands."""
    parser = argparse.ArgumentParser(
        prog="netem", description="Links with loss, delay and cuts, below TCP."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_local(commands)
    for part in PARTS:
        # Each brings its own commands.
        importlib.import_module(f"netem.{part}.cli").add_parser(commands)
    return parser


def _add_local(commands: Any) -> None:
    show = _command(commands, "show", _show, "what holds on interfaces, and what passed")
    show.add_argument("interface", nargs="*", help="default: every one that netem changed")
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    change = _command(commands, "set", _set, "make an interface lossy, slow or cut")
    change.add_argument("interface")
    add_spec(change)
    _add_dry_run(change)
    change.add_argument(
        "--force", action="store_true", help="even on the default route or your SSH session"
    )
    clear = _command(commands, "clear", _clear, "take away what set did")
    clear.add_argument("interface", nargs="*", help="default: every one that netem changed")
    _add_dry_run(clear)
    examine = _command(commands, "doctor", _doctor, "which features are here, and what to do")
    examine.add_argument("--json", action="store_true", help="one JSON object a line")


def _command(commands: Any, name: str, run: Any, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(run=run)
    return parser


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show the commands, change nothing")


def _show(args: argparse.Namespace) -> int:
    backend = TcBackend()
    readings = {}
    for name in args.interface or backend.links():
        if (reading := backend.observe(name)) is not None:
            readings[name] = reading
        elif args.interface:
            print(f"netem: nothing of ours is on {name}", file=sys.stderr)
    if args.json:
        print(*readings_json(readings), sep="\n", end="\n" if readings else "")
    else:
        Console().print(readings_table(readings))
    return EXIT_DONE


def _set(args: argparse.Namespace) -> int:
    duplex = duplex_of(args)
    if duplex is None:
        raise BadSpec("no link is described: write it like loss=10% delay=50ms, or 0 for perfect")
    backend = TcBackend()
    if not args.force:
        backend.guard(args.interface, ssh_connection())
    if args.dry_run:
        return _print_commands(backend.plan(args.interface, duplex))
    reading = backend.apply(args.interface, duplex)
    for name, spec in (("egress", reading.egress.spec), ("ingress", reading.ingress.spec)):
        print(f"{args.interface} {name}: {spec}")
    return EXIT_DONE


def _clear(args: argparse.Namespace) -> int:
    backend = TcBackend()
    for name in args.interface or backend.links():
        if args.dry_run:
            _print_commands(backend.plan_clear(name))
        elif not backend.clear(name):
            print(f"netem: nothing of ours is on {name}", file=sys.stderr)
    return EXIT_DONE


def _doctor(args: argparse.Namespace) -> int:
    findings = drive(doctor.examine(), LocalRunner())
    if args.json:
        print(*findings_json(findings), sep="\n")
    else:
        Console().print(findings_table(findings))
    try:
        backend = doctor.choose(findings)
    except MissingFeature as error:
        print(f"netem: no backend works here: {error.message}", file=sys.stderr)
        return EXIT_FAILED
    if not args.json:
        print(f"\nbackend: {backend}")
    return EXIT_DONE


def _print_commands(commands: Sequence[Command]) -> int:
    for command in commands:
        print(command)
    return EXIT_DONE
