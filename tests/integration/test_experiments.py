"""`experiments` as a person runs it: the service keeps its word, and a broken one is caught."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.shared import REPOSITORY, wait_until

pytestmark = pytest.mark.integration

TIMEOUT_S = 240.0
MARK = "EXPERIMENTS_TEST_MARK"

CORE_DIES = """
title = "The core is killed twice"
[cluster]
workers = 1
slots = 4
engine = "null"
service_ms = {service_ms}
lease_ttl_s = 2.0
[images]
count = 4
size_px = 32
[client]
wait_s = 0.3
[stop]
replicates = 1
minimum_images = 1000000
longest_s = 7.0
[[faults.timeline]]
at_s = 3.0
kind = "core-crash"
[[faults.timeline]]
at_s = 6.0
kind = "core-crash"
"""

STORM = """
title = "Arrivals and faults by chance"
metric = "latency_ms_p50"
[cluster]
workers = 2
slots = 4
engine = "null"
service_ms = 20.0
lease_ttl_s = 2.0
[images]
count = 4
size_px = 32
[load]
kind = "poisson"
rate_per_s = 25.0
concurrency = 64
[faults]
per_minute = 40.0
kinds = ["crash", "hang"]
longest_s = 1.0
[stop]
replicates = 3
minimum_images = 100
longest_s = 6.0
"""

# What a build without the promise would do. It is put in from outside: the product has no flag
# to switch a promise off.
SABOTAGE = {
    "fencing": """
from master.scheduler.tokens import TokenBlock
honest = TokenBlock.reserved
def reserved(self, first, last):
    begin = 1 if self.first_of_life is None else self._last + 1
    honest(self, begin, begin + last - first)
TokenBlock.reserved = reserved
""",
    # As if nothing was synced: what the core had just accepted is gone after its death.
    "durability": """
import sqlite3
from pathlib import Path
table = Path(sys.orig_argv[sys.orig_argv.index("--data") + 1]) / "jobs.db"
if table.exists():
    with sqlite3.connect(table) as db:
        sql = "SELECT sql FROM sqlite_master WHERE name = 'jobs_open_stay'"
        (trigger,) = db.execute(sql).fetchone()
        db.execute("DROP TRIGGER jobs_open_stay")
        db.execute("DELETE FROM jobs WHERE state IS NULL")
        db.execute(trigger)
    db.close()
""",
}
PATCH_THE_CORE = """
import sys
if "master" in sys.orig_argv and "core" in sys.orig_argv:
"""


def start(
    *arguments: str, cwd: Path, path: Path | None = None, mark: str = "unmarked"
) -> subprocess.Popen[str]:
    """`experiments …`; its children inherit `mark`, so that survivors can be found."""
    found = os.pathsep.join([str(REPOSITORY), *([str(path)] if path else [])])
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": found, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def survivors(mark: str) -> list[str]:
    """Processes that carry the mark and still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.parametrize(
    ("seconds", "seed"), [("20", "1"), pytest.param("100", "2", marks=pytest.mark.slow)]
)
def test_under_random_faults_the_service_keeps_its_word(
    tmp_path: Path, seconds: str, seed: str
) -> None:
    run = start("check", "--seconds", seconds, "--seed", seed, "--out", "run", cwd=tmp_path)
    said, _ = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 0, said
    assert "history: no violation" in said
    folder = tmp_path / "run"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["weights_sha256"]) == 64 and manifest["seed"] == int(seed)
    (kept,) = (json.loads(path.read_text()) for path in folder.glob("replicates/*.json"))
    assert kept["metrics"]["faults"] >= 3 and kept["metrics"]["lost_images"] == 0
    (rows,) = folder.glob("replicates/*.parquet")
    assert pq.read_table(rows).num_rows == kept["metrics"]["images"] > 100
    report = (folder / "report.html").read_text()
    assert report.index("<img") < report.index("<table"), "the picture comes first"
    assert "found nothing" in report and 'src="http' not in report
    assert {p.suffix for p in (folder / "plots").iterdir()} == {".png", ".svg"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "service_ms", "finding"),
    # Many leases, so that tokens meet again; long ones, so that clients have heard of their 2xx.
    [("fencing", 5.0, "token"), ("durability", 1500.0, "accepted, and gone")],
)
def test_a_build_that_breaks_a_promise_is_caught(
    tmp_path: Path, broken: str, service_ms: float, finding: str
) -> None:
    (tmp_path / "dies.toml").write_text(CORE_DIES.format(service_ms=service_ms))
    (tmp_path / "sabotage").mkdir()
    body = "".join(f"    {line}\n" for line in SABOTAGE[broken].strip().splitlines())
    (tmp_path / "sabotage" / "sitecustomize.py").write_text(PATCH_THE_CORE + body)
    run = start("run", "dies.toml", "--out", "run", cwd=tmp_path, path=tmp_path / "sabotage")
    said, _ = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 1, said
    assert "promises were broken" in said and finding in said.replace("\n", " ")
    assert "This run FAILED" in (tmp_path / "run" / "report.html").read_text()


def test_an_interrupted_run_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    text = CORE_DIES.format(service_ms=5.0).replace("replicates = 1", "replicates = 2")
    text = text.replace("longest_s = 7.0", "longest_s = 2.0")
    (tmp_path / "mine.toml").write_text(text.partition("[[faults")[0])
    mark = secrets.token_hex(8)
    run = start("run", "mine.toml", "--out", "run", cwd=tmp_path, mark=mark)
    folder = tmp_path / "run"
    wait_until(lambda: list(folder.glob("replicates/*.json")), TIMEOUT_S, "one replicate")
    wait_until(lambda: list(folder.glob("work/*/load.jsonl")), TIMEOUT_S, "load of the second")
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 130, said
    assert survivors(mark) == []
    (first,) = folder.glob("replicates/*.json")
    before = first.stat().st_mtime_ns
    again = start("run", "mine.toml", "--out", "run", "--resume", cwd=tmp_path)
    said, _ = again.communicate(timeout=TIMEOUT_S)
    assert again.returncode == 0, said
    assert len(list(folder.glob("replicates/*.json"))) == 2
    assert first.stat().st_mtime_ns == before, "what was finished is not done again"


@pytest.mark.slow
def test_one_seed_is_one_schedule_and_its_intervals_overlap(tmp_path: Path) -> None:
    (tmp_path / "storm.toml").write_text(STORM)
    found = []
    for name in ("a", "b"):
        run = start("run", "storm.toml", "--seed", "5", "--out", name, cwd=tmp_path)
        said, _ = run.communicate(timeout=TIMEOUT_S)
        assert run.returncode == 0, said
        files = sorted((tmp_path / name).glob("replicates/*.json"))
        found.append([json.loads(path.read_text())["schedule"] for path in files])
    assert found[0] == found[1] and len(set(found[0])) == 3
    lines = [
        {line["metric"]: line for line in json.loads((tmp_path / n / "summary.json").read_text())}
        for n in ("a", "b")
    ]
    for metric in ("goodput_per_s", "throughput_per_s"):
        first, second = (at[metric] for at in lines)
        assert first["low95"] <= second["high95"] and second["low95"] <= first["high95"], metric
    compare = start("compare", "a", "b", cwd=tmp_path)
    said, _ = compare.communicate(timeout=TIMEOUT_S)
    assert compare.returncode == 0, said
    print(said)
    assert "3 of 3 replicates have the same" in said
