"""The command `master`: up, core, status, token, model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from master import logs, status, up
from master.config import socket_path
from master.flags import build_parser, core_config, data_dir, token, token_file, up_config
from master.models import cli as model_cli
from wire.errors import LookoutError

ADDRESS_CODES = ("address_in_use", "address_forbidden", "address_unusable")
EXIT_INTERRUPTED = 130

__all__ = ["build_parser", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status: 2 for what the user can mend, 3 for an address."""
    options = build_parser().parse_args(arguments)
    logs.set_up(getattr(options, "log_format", "text"), getattr(options, "log_level", "info"))
    try:
        return _COMMANDS[options.command](options)
    except LookoutError as error:
        sys.stderr.write(f"master: {error}\n")
        unusable = getattr(error, "code", "") in ADDRESS_CODES
        return up.EXIT_ADDRESS_UNUSABLE if unusable else up.EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _up(options: argparse.Namespace) -> int:
    return up.run(up_config(options))


def _core(options: argparse.Namespace) -> int:
    # Imported here: `master status` must not wait for the whole core to load.
    from master.core.main import claim_store, run_core
    from master.models.choice import Choice, in_force
    from master.models.resolve import resolve

    config = core_config(options)
    store = claim_store(config)
    try:
        flags = Choice(config.model, config.weights)
        choice = in_force(config.data_dir, config.given, flags)
        model = resolve(choice.model, choice.weights, offline=config.offline)
        return run_core(config, store, model)
    finally:
        store.close()


def _status(options: argparse.Namespace) -> int:
    address = options.core or f"unix:{socket_path(data_dir(options))}"
    return status.run(address, token_file(options), watch=options.watch, as_json=options.json)


def _model(options: argparse.Namespace) -> int:
    if options.model_command != "set":
        return model_cli.run(options)
    address = options.core or f"unix:{socket_path(data_dir(options))}"
    return status.set_model(address, token_file(options), options.name, options.weights)


def _token(options: argparse.Namespace) -> int:
    sys.stdout.write(token(options) + "\n")
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "up": _up,
    "core": _core,
    "status": _status,
    "token": _token,
    "model": _model,
}
