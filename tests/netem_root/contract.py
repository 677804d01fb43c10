"""The contract of the netem backends as a table: what each does to the same LinkSpecs.

    python -m tests.netem_root.contract [--rounds N] [--seconds S] [--flow cubic loss=10%]

Boots the kernel of `uml.py`, and measures `tc` (a real `sch_netem`) and `userspace` in turn on
one link: loss of 10,000 datagrams, one-way delay, and goodput of one bulk TCP flow, as medians
over the rounds with their smallest and largest. `ratio` is userspace over tc, in one run.
With `--flow` only that kind of flow is measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from netem.grammar import parse
from netem.spec import Duplex
from tests.netem_root import uml

if TYPE_CHECKING:
    from tests.netem_root.guest.arena import Arena

PACKETS: Final = 10_000
GAP_US: Final = 300
LOSSES: Final = ("loss=0%", "loss=1%", "loss=5%", "loss=10%", "bursts=2%,18%")
DELAYS_MS: Final = (1, 5, 20, 100)
DELAY_PACKETS: Final = 300
STREAM_LINK: Final = "rate=8mbit delay=5ms"
"""8 Mbit/s: a rate that the kernel's one processor carries through a process too."""
TIMEOUT_S: Final = 580.0


def main() -> int:
    """Boot and measure; inside the kernel, measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.netem_root.contract")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each TCP flow")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="of the whole, in s")
    parser.add_argument("--flow", nargs=2, metavar=("CONGESTION", "LOSS"), help="only this one")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        measure(args.rounds, args.seconds, args.flow)
        return 0
    if (reason := uml.why_not()) is not None:
        parser.exit(1, f"{reason}\n")
    options = ["--inside", "--rounds", str(args.rounds), "--seconds", str(args.seconds)]
    if args.flow:
        options += ["--flow", *args.flow]
    done = uml.run_python(
        ["-m", "tests.netem_root.contract", *options], timeout_s=args.timeout, on_output=_show
    )
    return done.returncode


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def measure(rounds: int, seconds: float, flow: tuple[str, str] | None) -> None:
    """Print the three tables, or a row of the last one."""
    from tests.netem_root.guest import arena

    arena.give_sockets_room()
    flows = [flow] if flow else [(c, loss) for c in ("bbr", "cubic") for loss in LOSSES[:4]]
    with ExitStack() as stack:
        arenas = {name: stack.enter_context(make()) for name, make in arena.ARENAS.items()}
        if not flow:
            _measure_datagrams(arenas)
        print(f"goodput of one TCP flow in Mbit/s, {STREAM_LINK} both ways: tc, userspace, ratio")
        for congestion, text in flows:
            rates: dict[str, list[float]] = {name: [] for name in arenas}
            for _ in range(rounds):
                for name, one in arenas.items():
                    one.set(Duplex.both(parse(f"{text} {STREAM_LINK}")))
                    rates[name].append(arena.stream(one, seconds, congestion)["mbit_s"])
            print(f"  {congestion:5} {text:8} {_rates(rates)}", flush=True)


def _measure_datagrams(arenas: Mapping[str, Arena]) -> None:
    """The tables of loss and delay."""
    from tests.netem_root.guest import arena

    print(f"loss of {PACKETS} datagrams, in %: requested, tc, userspace")
    for text in LOSSES:
        row = [f"{100 * parse(text).mean_loss:5.2f}"]
        for one in arenas.values():
            one.set(Duplex(egress=parse(text)))
            got = arena.datagrams(one, PACKETS, gap_us=GAP_US)
            row.append(f"{100 * (1 - got['distinct'] / PACKETS):5.2f}")
        print(f"  {text:16} {'  '.join(row)}", flush=True)
    print("one-way delay in ms, p1/p50/p99: requested, tc, userspace")
    for delay_ms in DELAYS_MS:
        row = []
        for one in arenas.values():
            one.set(Duplex.both(parse(f"delay={delay_ms}ms")))
            got = arena.datagrams(one, DELAY_PACKETS, gap_us=5000)
            row.append("/".join(f"{got[key]:.2f}" for key in ("p1_ms", "p50_ms", "p99_ms")))
        print(f"  {delay_ms:4}   {'   '.join(row)}", flush=True)


def _rates(rates: dict[str, list[float]]) -> str:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    shown = [f"{medians[n]:.2f} ({min(v):.2f}-{max(v):.2f})" for n, v in rates.items()]
    return f"{'   '.join(shown)}   {medians['userspace'] / medians['tc']:.2f}"


if __name__ == "__main__":
    sys.exit(main())
