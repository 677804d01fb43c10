"""Emulated links: how much they carry, and how exactly they delay.

    python -m tests.bench.netem_bench [--backend userspace|tc] [--rounds N] [--seconds S]

Two hosts of a lab, one link between them. Goodput is that of one TCP connection with
packets of 1,500 bytes; the emulator, both ends and their TCP share this machine's
processors. The timing error is what datagrams needed beyond the requested delay, on a
link with nothing else on it: two passes through the kernel, the emulator, and the
receiver's waking up. Where they may, sender and receiver of these run with real-time
priority, as the emulator does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from netem.grammar import parse
from netem.lab import Lab, star
from netem.spec import Duplex
from tests.netem_root.labs import lab_name, peer, start_peer

CARRIED = ("0", "delay=1ms limit=10000", "delay=5ms limit=10000", "delay=5ms loss=1% limit=10000")
SHAPED = ("rate=100mbit delay=5ms", "rate=500mbit delay=5ms limit=10000")
DELAYED = ("0", "delay=1ms", "delay=10ms", "delay=100ms", "delay=10ms rate=100mbit")
DATAGRAMS = 1000
GAP_US = 2000
DATAGRAM_BYTES = 1472


def measure(lab: Lab, sink: Sequence[str], source: Sequence[str]) -> dict[str, Any]:
    """Run a source in the worker against a sink in the master: what the sink says."""
    receiver = start_peer(lab, "master", *sink)
    subprocess.run(lab.command("worker-1", peer(*source)), check=True)
    said, _ = receiver.communicate(timeout=60)
    found: dict[str, Any] = json.loads(said)
    return found


def stream(lab: Lab, seconds: float) -> dict[str, Any]:
    """One TCP connection: goodput, and what the emulator needed for it."""
    helpers = psutil.Process(lab.record.keeper_pid).children()
    before_s = sum(sum(p.cpu_times()[:2]) for p in helpers)
    found = measure(lab, ["stream-sink"], ["stream", "master", str(seconds)])
    used_s = sum(sum(p.cpu_times()[:2]) for p in helpers) - before_s
    link = lab.status()["worker-1"].reading
    packets = link.egress.counters.delivered_packets + link.ingress.counters.delivered_packets
    found["packets_s"] = packets / found["seconds"]
    found["us_packet"] = used_s * 1e6 / packets
    return found


def datagrams(lab: Lab, requested_ms: float) -> dict[str, Any]:
    """Single packets on an idle link: how much later than requested they arrive."""
    source = ["--realtime", "datagrams", "master", str(DATAGRAMS), str(GAP_US), str(DATAGRAM_BYTES)]
    found = measure(lab, ["--realtime", "datagram-sink"], source)
    return {key: found[key] - requested_ms for key in ("p1_ms", "p50_ms", "p99_ms")}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is text."""
    made = Table(title=title, box=None, title_justify="left", title_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    for row in rows:
        made.add_row(*row)
    return made


def spread(values: Sequence[float], digits: int) -> str:
    """Median, and the range of all rounds."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def rounds_of(
    lab: Lab, specs: Sequence[str], rounds: int, once: Callable[[str], dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Every LinkSpec once in each round, so that a disturbance hits them all."""
    found: dict[str, list[dict[str, Any]]] = {spec: [] for spec in specs}
    for _ in range(rounds):
        for spec in specs:
            lab.set("worker-1", Duplex.both(parse(spec)))
            found[spec].append(once(spec))
    return found


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.netem_bench", description=__doc__)
    parser.add_argument("--backend", default="userspace", choices=("auto", "tc", "userspace"))
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S")
    options = parser.parse_args()
    console = Console(width=110)
    topology = star(lab_name("bench"), workers=1, backend=options.backend)
    with Lab.up(topology) as lab:
        streams = rounds_of(
            lab, [*CARRIED, *SHAPED], options.rounds, lambda _: stream(lab, options.seconds)
        )
        delays = rounds_of(
            lab, DELAYED, options.rounds, lambda spec: datagrams(lab, _requested_ms(spec))
        )
    rows = [
        [
            spec,
            spread([one["mbit_s"] for one in found], 0),
            spread([one["packets_s"] / 1e3 for one in found], 1),
            spread([one["us_packet"] for one in found], 1),
        ]
        for spec, found in streams.items()
    ]
    columns = ["link, each way", "goodput Mbit/s", "1,000 packets/s", "CPU µs/packet"]
    console.print(
        table(f"one TCP connection, {options.rounds} rounds: median (range)", columns, rows)
    )
    rows = [
        [spec, *(spread([one[key] for one in found], 2) for key in ("p1_ms", "p50_ms", "p99_ms"))]
        for spec, found in delays.items()
    ]
    title = f"timing error in ms, {DATAGRAMS} packets {GAP_US / 1e3:g} ms apart: median (range)"
    console.print()
    console.print(table(title, ["link, each way", "p1", "p50", "p99"], rows))


def _requested_ms(spec: str) -> float:
    """What a lone datagram has to wait for: its delay and its turn."""
    link = parse(spec)
    frame_bits = (DATAGRAM_BYTES + 28 + 14) * 8
    return link.delay_ms + (frame_bits * 1e3 / link.rate_bps if link.rate_bps else 0.0)


if __name__ == "__main__":
    main()
