"""`make bench`: every benchmark, one after the other; `make bench ARGS=service` for one.

    python -m tests.bench [NAME …] [-- ARGUMENTS of that benchmark]

Each prints a table with medians and spreads. Nothing here is a test: figures of
shared machines differ from run to run, and only rows of one run compare.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence

BENCHES = {
    "peers": "Lookout beside Flask, LitServe, mosec, Ray Serve and the bare limit",
    "service": "the whole service over HTTP: images/s, latency, CPU per job",
    "listeners": "the same load beside 0 and 500 event streams",
    "master": "core and web with simulated workers: durable images/s, CPU of each process",
    "scale": "the core with 3 to 1,000 workers and 10 to 10^6 queued jobs: CPU, latency, memory",
    "decode": "JPEGs: ordinary ones step by step, 12 megapixels at full size and scaled",
    "graphs": "GoogLeNet as OpenVINO converts it and as Lookout does: inference alone",
    "cuda": "GoogLeNet in half precision on a CUDA device: limit, engine, pipeline",
    "store": "the job table: durable jobs/s, commit latency, recovery",
    "scheduler": "the scheduler alone: CPU per job, memory per queued job",
    "netem": "emulated links: throughput and timing error of the userspace backend",
    "streams": "one worker's link by loss: goodput of TCP and of Lookout",
    "wire": "frames over one connection: messages/s",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks named, or all; the first exit status that isn't 0."""
    listed = "\n".join(f"  {name:10} {what}" for name, what in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (all)")
    options, rest = parser.parse_known_args(arguments)
    unknown = sorted(set(options.names) - set(BENCHES))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; known: {', '.join(BENCHES)}")
    names = options.names or list(BENCHES)
    if rest and len(names) != 1:
        parser.error(f"{' '.join(rest)}: name the one benchmark that these are for")
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {load:.1f}", flush=True)
    for name in names:
        print(f"\n## {name}: {BENCHES[name]}\n", flush=True)
        module = f"tests.bench.{name}_bench"
        status = subprocess.run([sys.executable, "-m", module, *rest], check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
