"""`master model list` and `master model show`: the flags; the tables are `tables.py`'s."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from wire.errors import EnvironmentFault

EXIT_USER = 2


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """Mount `model` with `list` and `show`; returns where further subcommands can be added."""
    model = subparsers.add_parser("model", help="list the models, or show one")
    commands = model.add_subparsers(dest="model_command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="every model that the master can serve")
    listing.set_defaults(run=run)
    show = commands.add_parser("show", help="one model: its weights, and the card it is served by")
    show.add_argument("--model", help="torchvision's name of it (default: googlenet)")
    show.add_argument("--weights", type=Path, metavar="FILE", help="a weights file of your own")
    show.set_defaults(run=run)
    return commands


def run(args: argparse.Namespace) -> int:
    """Run `master model list|show`; 0, or 2 for what the user has to change first."""
    # Only here: rich would slow the start of every other `master` command.
    from master.models.tables import show_list, show_model

    try:
        if args.model_command == "list":
            show_list(sys.stdout, os.environ)
        else:
            show_model(sys.stdout, os.environ, args.model, args.weights)
    except EnvironmentFault as fault:
        sys.stderr.write(f"master: {fault.reason}\n")
        return EXIT_USER
    return 0
