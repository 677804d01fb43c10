"""The folder of a run: written replicate by replicate, so that it can be resumed.

    manifest.json                what produced it
    replicates/PLACE.json        the numbers of one replicate, and what happened in it
    replicates/PLACE.parquet     a row for each image
    summary.csv, summary.json    means and intervals by point
    plots/*.png, *.svg           pictures
    report.html                  everything in one file
    logs/PLACE/                  logs of a replicate that failed

A replicate is finished when its `.json` is there: it is written last, under
another name, and renamed.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.errors import BadRun
from experiments.events import Happened
from experiments.manifest import Manifest
from experiments.replicate import Found
from experiments.rows import JobRow

COMPRESSION: Final = "zstd"


class Lease(msgspec.Struct, kw_only=True, frozen=True):
    """One lease on the time line; seconds after the load began, `began_s` None if not begun."""

    job: str
    token: int
    worker: str
    outcome: str
    granted_s: float
    began_s: float | None
    ended_s: float


class Kept(msgspec.Struct, kw_only=True, frozen=True):
    """One finished replicate. Times are seconds after the load began.

    `schedule` is the SHA-256 of what chance had planned for it.
    """

    point: str
    replicate: int
    metrics: dict[str, float | None]
    faults: list[Happened]
    leases: list[Lease]
    violations: list[str]
    network: dict[str, Any]
    counters: dict[str, Any]
    schedule: str = ""

    def metric(self, name: str) -> float:
        """One number, NaN where it was not measured."""
        value = self.metrics.get(name)
        return math.nan if value is None else value


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._replicates = path / "replicates"

    def create(self, manifest: Manifest) -> None:
        """Make it; an existing run's stays as it is.

        Raises:
            BadRun: there is something else.
        """
        if self.path.exists() and any(self.path.iterdir()):
            raise BadRun(f"{self.path} is not empty: give another --out, or --resume it")
        self._replicates.mkdir(parents=True, exist_ok=True)
        self.write_manifest(manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write or replace it."""
        text = json.dumps(msgspec.to_builtins(manifest), indent=1, sort_keys=True)
        _write(self.path / "manifest.json", text)

    def manifest(self) -> Manifest:
        """What produced this run.

        Raises:
            BadRun: there is no run here.
        """
        path = self.path / "manifest.json"
        if not path.is_file():
            raise BadRun(f"{self.path} holds no run: there is no manifest.json")
        return msgspec.json.decode(path.read_bytes(), type=Manifest)

    def finished(self) -> set[str]:
        """Names of the places that are done."""
        return {path.stem for path in self._replicates.glob("*.json")}

    def keep(self, found: Found) -> Kept:
        """Write a finished replicate."""
        kept = _kept(found)
        table = pa.Table.from_pylist([msgspec.to_builtins(row) for row in found.rows], _SCHEMA)
        pq.write_table(
            table, self._replicates / f"{found.place.name}.parquet", compression=COMPRESSION
        )
        _write(self._replicates / f"{found.place.name}.json", msgspec.json.encode(kept).decode())
        return kept

    def replicates(self) -> list[Kept]:
        """Every finished replicate, by point and number."""
        paths = sorted(self._replicates.glob("*.json"))
        return [msgspec.json.decode(path.read_bytes(), type=Kept) for path in paths]

    def rows(self, place_name: str) -> list[JobRow]:
        """The raw rows of one replicate."""
        table = pq.read_table(self._replicates / f"{place_name}.parquet")
        return [msgspec.convert(row, JobRow) for row in table.to_pylist()]

    def work(self, place_name: str) -> Path:
        """An empty folder for a replicate that begins."""
        path = (self.path / "work" / place_name).absolute()
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def tidy(self, place_name: str, *, failed: bool) -> None:
        """Remove a replicate's working folder; its logs stay where it failed."""
        work = self.path / "work" / place_name
        if failed:
            logs = self.path / "logs" / place_name
            logs.mkdir(parents=True, exist_ok=True)
            for log in work.glob("*.log"):
                shutil.copy(log, logs)
        shutil.rmtree(work, ignore_errors=True)

    def write_summary(self, lines: list[dict[str, Any]]) -> None:
        """One line for each point and metric, as CSV and as JSON."""
        _write(self.path / "summary.json", json.dumps(_finite(lines), indent=1))
        names = list(lines[0]) if lines else []
        with (self.path / "summary.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(lines)


def _kept(found: Found) -> Kept:
    began_s = found.began_s
    return Kept(
        point=found.place.point,
        replicate=found.place.replicate,
        metrics={k: v if math.isfinite(v) else None for k, v in found.metrics.items()},
        faults=[
            msgspec.structs.replace(
                fault, began_s=fault.began_s - began_s, ended_s=fault.ended_s - began_s
            )
            for fault in found.faults
        ],
        leases=[
            Lease(
                job=audit.grant.job,
                token=audit.grant.token,
                worker=audit.grant.worker,
                outcome=audit.grant.outcome,
                granted_s=audit.grant.granted_s - began_s,
                began_s=None if audit.started_s is None else audit.started_s - began_s,
                ended_s=audit.grant.ended_s - began_s,
            )
            for audit in found.audits
        ],
        violations=[str(violation) for violation in found.violations],
        network=found.network,
        counters=found.counters,
        schedule=found.schedule,
    )


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.rename(path)


def _finite(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        for line in lines
    ]


_TYPES: Final = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
_SCHEMA: Final = pa.schema(
    [
        (field.name, _TYPES[str(JobRow.__annotations__[field.name]).partition(" ")[0]])
        for field in msgspec.structs.fields(JobRow)
    ]
)
