"""`netem remote …`: the links of all hosts of an inventory, over SSH."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from netem.display import readings_json, readings_table
from netem.errors import BadSpec
from netem.flags import add_spec, duplex_of
from netem.remote.fleet import TTL_DEFAULT_S, TTL_MAX_S, TTL_MIN_S, Fleet, fleet_of
from netem.remote.inventory import read_inventory

_WHAT: Final = "links of the hosts of an inventory file, over SSH"


def add_parser(commands: Any) -> None:
    """Add `remote` to the commands of `netem`; each of its own sets `run`."""
    remote = commands.add_parser("remote", help=_WHAT, description=_WHAT)
    verbs = remote.add_subparsers(required=True, metavar="COMMAND")
    change = _verb(verbs, "set", _set, "make every host's link lossy, slow or cut, or none")
    add_spec(change)
    _add_ttl(change)
    change.add_argument("--dry-run", action="store_true", help="show the commands, change nothing")
    change.add_argument(
        "--force",
        action="store_true",
        help="even on a default route or the SSH session's interface",
    )
    show = _verb(verbs, "show", _show, "what holds on every host, and what passed")
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_ttl(_verb(verbs, "refresh", _refresh, "give every watchdog new time"))
    _verb(verbs, "clear", _clear, "take every link back and end the watchdogs")


def _verb(verbs: Any, name: str, run: Any, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what)
    parser.add_argument("inventory", type=Path, help="TOML file with the hosts")
    parser.add_argument("--only", action="append", default=[], metavar="HOST", help="not all hosts")
    parser.set_defaults(run=run)
    return parser


def _add_ttl(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ttl",
        type=int,
        default=TTL_DEFAULT_S,
        metavar="SECONDS",
        help=f"each host takes its link back by itself after that (default {TTL_DEFAULT_S})",
    )


def _on_fleet(args: argparse.Namespace, work: Callable[[Fleet], Awaitable[Any]]) -> Any:
    if not TTL_MIN_S <= getattr(args, "ttl", TTL_MIN_S) <= TTL_MAX_S:
        raise BadSpec(f"--ttl {args.ttl} is out of range: from {TTL_MIN_S} to {TTL_MAX_S} s")
    try:
        text = args.inventory.read_text(encoding="utf-8")
    except OSError as error:
        raise BadSpec(f"can't read the inventory {args.inventory}: {error.strerror}") from error
    hosts = read_inventory(text, args.only)

    async def run() -> Any:
        async with fleet_of(hosts) as fleet:
            return await work(fleet)

    return asyncio.run(run())


def _set(args: argparse.Namespace) -> int:
    duplex = duplex_of(args)
    if duplex is None:
        raise BadSpec("no link is described: write it like loss=10% delay=50ms, or 0 for perfect")
    if args.dry_run:
        for name, commands in _on_fleet(args, lambda fleet: fleet.plan(duplex)).items():
            print(f"# {name}", *commands, sep="\n")
        return 0
    readings = _on_fleet(args, lambda fleet: fleet.apply(duplex, ttl_s=args.ttl, force=args.force))
    Console().print(readings_table(readings, "host"))
    return 0


def _show(args: argparse.Namespace) -> int:
    async def look(fleet: Fleet) -> Any:
        return await fleet.observe(), await fleet.left_s()

    found, left = _on_fleet(args, look)
    readings = {name: reading for name, reading in found.items() if reading is not None}
    if args.json:
        print(*readings_json(readings), sep="\n", end="\n" if readings else "")
        return 0
    Console().print(readings_table(readings, "host"))
    for name in found:
        seconds = left[name]
        told = "no watchdog" if seconds is None else f"takes its link back in {seconds} s"
        print(f"{name}: {told}")
    return 0


def _refresh(args: argparse.Namespace) -> int:
    _on_fleet(args, lambda fleet: fleet.refresh(args.ttl))
    return 0


def _clear(args: argparse.Namespace) -> int:
    for name, cleared in _on_fleet(args, lambda fleet: fleet.clear()).items():
        print(f"{name}: {'cleared' if cleared else 'nothing of ours was there'}")
    return 0
