"""A cluster on links that lose and delay, for some time: does it stay one?

    python -m tests.netem_root.bad_links [--seconds S] [--workers N] [--loss %] [--delay MS] …

Run it inside `tests.netem_root.uml`, or with `--lab`. Every worker's link gets the same
conditions in both directions. Jobs of 100 kB are kept waiting for the given time; then the
rest has to end. Prints one line of JSON: what was submitted and ended, deaths, streams, goodput.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.netem_root.star import (
    IMAGE_BYTES,
    Client,
    Conditions,
    Feeder,
    LabLinks,
    Links,
    Star,
    StarCluster,
    wait_for,
)

JOIN_TIMEOUT_S = 120.0
END_TIMEOUT_S = 600.0
JOBS_WAITING_PER_WORKER = 24


def run(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The whole story; raises if a job doesn't end."""
    links: Star = (LabLinks if options.lab else Links)(options.workers)
    links.set_all(Conditions(options.loss, options.delay, options.rate))
    flags = ["--streams", options.streams]
    with StarCluster(folder, links, flags) as cluster:
        client = Client(cluster)
        cluster.start_workers()
        wait_for("every worker", lambda: client.ready() == options.workers, JOIN_TIMEOUT_S)
        begun, before = time.monotonic(), client.stats()
        with Feeder(client, JOBS_WAITING_PER_WORKER * options.workers):
            while time.monotonic() < begun + options.seconds:
                time.sleep(min(1.0, options.seconds / 10))
        fed_s, fed, views = time.monotonic() - begun, client.ended(), client.workers()
        wait_for("the end of all jobs", lambda: client.open_jobs() == 0, END_TIMEOUT_S)
        stats = client.stats()
        logs = cluster.logs()
        report: dict[str, object] = {
            "seconds": round(fed_s, 1),
            "submitted": client.submitted,
            "succeeded": stats.counts.get("succeeded", 0),
            "failed": stats.counts.get("failed", 0),
            "goodput_mbit_s": round(fed * IMAGE_BYTES * 8 / fed_s / 1e6, 3),
            "drain_s": round(time.monotonic() - begun - fed_s, 1),
            "streams": [views[name].streams for name in sorted(views)],
            "retransmitted": [views[name].retransmitted for name in sorted(views)],
            "joins": len(re.findall(r" worker_joined ", logs)),
            "streams_opened": len(re.findall(r" stream_joined ", logs)),
            "streams_replaced": len(re.findall(r" stream_joined .*replaces=\[\d", logs)),
        }
        for name in ("suspected", "died", "revived", "lost", "expired", "stale", "wasted"):
            report[name] = stats.counters.get(name, 0) - before.counters.get(name, 0)
        client.close()
        if options.logs:
            print(logs, file=sys.stderr)
    links.close()
    return report


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.netem_root.bad_links"
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--loss", type=float, default=30.0, help="percent, each way")
    parser.add_argument("--delay", type=float, default=100.0, help="ms, each way")
    parser.add_argument("--rate", type=float, default=100.0, help="Mbit/s, each way")
    parser.add_argument("--streams", default="auto")
    parser.add_argument("--lab", action="store_true", help="in a lab of this machine")
    parser.add_argument("--logs", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("REPORT", json.dumps(run(options, Path(folder))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
