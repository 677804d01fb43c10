"""How a command line describes both directions of a link."""

from __future__ import annotations

import argparse
from typing import Final

from netem.grammar import parse
from netem.spec import Duplex

_SPEC_HELP: Final = "KEY=VALUE words, such as loss=10%% delay=50ms; 0 for a perfect link"


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Arguments that `duplex_of` makes a Duplex of."""
    parser.add_argument("spec", nargs="*", metavar="KEY=VALUE", help=_SPEC_HELP)
    parser.add_argument("--egress", metavar="SPEC", help="what is sent, as one argument")
    parser.add_argument("--ingress", metavar="SPEC", help="what arrives, as one argument")


def duplex_of(args: argparse.Namespace) -> Duplex | None:
    """Both directions: the plain words, and in their place `--egress` or `--ingress`.

    None if nothing is said; a perfect link is asked for with `0`.

    Raises:
        BadSpec: see `netem.grammar.parse`.
    """
    if not args.spec and args.egress is None and args.ingress is None:
        return None
    both = parse(" ".join(args.spec))
    egress = both if args.egress is None else parse(args.egress)
    ingress = both if args.ingress is None else parse(args.ingress)
    return Duplex(egress, ingress)
