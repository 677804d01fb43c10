"""Goodput of one worker's link by loss: CUBIC, BBR, BBR over several streams, and Lookout.

    python -m tests.bench.streams_bench [--in lab|kernel] [--losses 0 5 10 …] [--ways raw auto 4 …]

100 kB images over a link of 100 Mbit/s and 5 ms each way with loss both ways. `lab`: hosts of
this machine, its kernel's TCP and its processors, and the userspace emulator where the kernel has
no `sch_netem`. `kernel`: real `sch_netem` inside User-Mode Linux, which has one processor, so that
often this and not the link is the limit. Each cell is the median of some rounds, with the
smallest and the largest. The limit is what a link that loses p of all packets can deliver at
best, C·(1-p).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from tests.bench.streams_link import RATE_MBIT, parser
from tests.netem_root import uml

TIMEOUT_S = 900.0
MEMORY_MB = 4096
"""Half of it is the guest's disk, where the images of all jobs lie."""


def main() -> int:
    """Boot, measure, print the table."""
    options = parser().parse_args()
    arguments = ["-m", "tests.bench.streams_link", *sys.argv[1:]]
    if options.place == "lab":
        here = subprocess.run(
            [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=False
        )
        returncode, output = here.returncode, here.stdout
    elif (reason := uml.why_not()) is not None:
        sys.stderr.write(f"{reason}\n")
        return 1
    else:
        inside = uml.run_python(arguments, timeout_s=TIMEOUT_S, memory_mb=MEMORY_MB)
        returncode, output = inside.returncode, inside.output
    if returncode != 0:
        sys.stderr.write(output)
        return returncode
    cells = [json.loads(line[5:]) for line in output.splitlines() if line[:5] == "CELL "]
    print(table(cells, options.losses))
    return 0


def table(cells: list[dict[str, object]], losses: list[float]) -> str:
    """Ways as rows, losses as columns, Mbit/s."""
    names = list(dict.fromkeys(str(cell["name"]) for cell in cells))
    by_place = {(cell["name"], cell["loss"]): cell for cell in cells}
    lines = ["| Mbit/s at loss | " + " | ".join(f"{loss:g} %" for loss in losses) + " |"]
    lines.append("|---" * (len(losses) + 1) + "|")
    for name in names:
        row = [_cell(by_place.get((name, loss))) for loss in losses]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    limit = [f"{RATE_MBIT * (1 - loss / 100):.0f}" for loss in losses]
    lines.append("| limit C·(1−p) | " + " | ".join(limit) + " |")
    return "\n".join(lines)


def _cell(cell: dict[str, object] | None) -> str:
    if cell is None or not isinstance(found := cell["mbit_s"], list) or not found:
        return "no connection"
    text = f"{statistics.median(found):.1f} ({min(found):.1f}–{max(found):.1f})"
    return f"{text}, {cell['streams']} streams" if "streams" in cell else text


if __name__ == "__main__":
    sys.exit(main())
