"""One replicate from an empty machine to its evidence, and back to an empty machine.

Starts the cluster, waits until the workers are ready, makes the links bad, lets
the load run while faults happen, heals everything, waits until no job is open,
ends every process, and reads the job table.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments import checker, ledger, load, schedule, watch
from experiments.cluster import READY_TIMEOUT_S, Cluster
from experiments.events import Happened, Usage
from experiments.history import Audit, History, Seen, Told
from experiments.injector import Injector
from experiments.ledger import Ledger
from experiments.metrics import Evidence, measure
from experiments.network import Network, network_for
from experiments.processes import END_TIMEOUT_S, Process
from experiments.rows import CALM, COUNTED, JobRow
from experiments.scenario import Engine, Scenario
from experiments.schedule import Place
from experiments.seconds import Moment
from experiments.seeds import Dimension, stream

LOOK_S: Final = 0.5
SETTLE_TIMEOUT_S: Final = 180.0
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What one replicate gave. `reference` is, by picture, the class in calm weather."""

    place: Place
    began_s: float
    rows: list[JobRow]
    audits: list[Audit]
    faults: list[Happened]
    metrics: dict[str, float]
    violations: list[checker.Violation]
    reference: dict[str, int]
    model: dict[str, Any]
    network: dict[str, Any]
    counters: dict[str, Any]
    schedule: str


class Replicate:
    """Runs one place of a scenario in `folder`; `cache` holds weights between replicates."""

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        folder: Path,
        cache: Path,
        reference: dict[str, int],
        on_progress: Progress,
    ) -> None:
        self._scenario = scenario
        self._place = place
        self._folder = folder
        self._cache = cache
        self._reference = dict(reference)
        self._on_progress = on_progress
        self._began = Moment.now()
        self._model: dict[str, Any] = {}
        self._stats: dict[str, Any] = {}
        self._sent = 0

    def run(self) -> Found:
        """Raises ProcessFailed if a process fails that nobody broke."""
        self._folder.mkdir(parents=True)
        return asyncio.run(self._run())

    async def _run(self) -> Found:
        with ExitStack() as stack:
            network = stack.enter_context(network_for(self._scenario, self._place))
            cluster = Cluster(self._scenario, self._folder, self._cache, network.site)
            stack.callback(cluster.close)
            watcher = await self._start(cluster, network)
            await self._prepare(cluster, network)
            await asyncio.to_thread(network.spoil)
            try:
                happened = await self._load(cluster, network)
            finally:
                readings = await asyncio.to_thread(network.heal)
            await self._settle(watcher)
            cluster.look()
            usage = cluster.usage()
            await network.close()
        return self._found(happened, usage, readings)

    async def _start(self, cluster: Cluster, network: Network) -> Process:
        cluster.start()
        await network.stand_between(cluster)
        for number in range(1, self._scenario.cluster.workers + 1):
            cluster.start_worker(number)
        order = watch.Order(
            url=cluster.url,
            workers=self._scenario.cluster.workers,
            events=str(self._folder / "events.jsonl"),
        )
        watcher = cluster.spawn(
            "watch", "master", "-m", "experiments.watch", self._write("watch", order)
        )
        self._model = await asyncio.to_thread(watcher.announcement, "ready", READY_TIMEOUT_S)
        return watcher

    async def _prepare(self, cluster: Cluster, network: Network) -> None:
        """Reference and warm-up, over links that are perfect still."""
        scenario = self._scenario
        calm = scenario.cluster.engine is Engine.TORCH and not self._reference
        if not calm and not scenario.stop.warmup_images:
            return
        loader = self._loader("prepare", cluster, network, prepare=True, calm=calm)
        said = await asyncio.to_thread(loader.announcement, "prepared", load.DRAIN_S)
        self._sent = int(said["sent"])
        await asyncio.to_thread(loader.wait, END_TIMEOUT_S)

    def _loader(
        self, name: str, cluster: Cluster, network: Network, *, prepare: bool, calm: bool
    ) -> Process:
        order = load.Order(
            url=network.url(cluster),
            scenario=self._scenario,
            point=self._place.point,
            replicate=self._place.replicate,
            rows=str(self._folder / f"{name}.jsonl"),
            classes=self._model["classes"],
            prepare=prepare,
            calm=calm,
            sent=self._sent,
        )
        return cluster.spawn(name, "client-1", "-m", "experiments.load", self._write(name, order))

    async def _load(self, cluster: Cluster, network: Network) -> list[Happened]:
        scenario, place = self._scenario, self._place
        injector = Injector(
            cluster,
            scenario.faults,
            network.cuts,
            stream(scenario.seed, Dimension.FAULTS, place.point, place.replicate, "per job"),
        )
        loader = self._loader("load", cluster, network, prepare=False, calm=False)
        try:
            longest_s = load.DRAIN_S + scenario.stop.longest_s
            began = await asyncio.to_thread(loader.announcement, "began", longest_s)
            began_s = float(began["monotonic_s"])
            self._began = Moment(began_s, time.time() - (time.monotonic() - began_s))
            cluster.count_from_now()
            self._break(injector, network, began_s)
            await self._follow(cluster, loader, injector)
        finally:
            await injector.close()
        return injector.happened

    def _break(self, injector: Injector, network: Network, began_s: float) -> None:
        """From now on things go wrong."""
        wanted, place = self._scenario.faults, self._place
        workers, stop = self._scenario.cluster.workers, self._scenario.stop
        seed = self._scenario.seed
        injector.schedule(schedule.faults(wanted, workers, stop.longest_s, place, seed), began_s)
        if wanted.failure_rate:
            network.on_assign(injector.assigned)
        worker, after = schedule.one_death(wanted, workers, stop.minimum_images, place, seed)
        if worker:
            network.after_assigns(after, lambda: injector.crash(worker))

    async def _follow(self, cluster: Cluster, loader: Process, injector: Injector) -> None:
        while loader.alive:
            await asyncio.sleep(LOOK_S)
            cluster.look()
            cluster.check_alive()
            if injector.error is not None:
                raise injector.error
            self._on_progress(loader.last("progress") or {})
        cluster.check_alive()

    async def _settle(self, watcher: Process) -> None:
        watcher.signal(signal.SIGTERM)
        self._stats = await asyncio.to_thread(watcher.announcement, "settled", SETTLE_TIMEOUT_S)
        await asyncio.to_thread(watcher.wait, SETTLE_TIMEOUT_S)

    def _write(self, name: str, order: msgspec.Struct) -> str:
        path = self._folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(order))
        return str(path)

    # --- afterwards ----------------------------------------------------------------------------

    def _found(
        self, happened: list[Happened], usage: dict[str, Usage], readings: dict[str, Any]
    ) -> Found:
        table = ledger.read(self._folder / "data")
        audits = [self._monotonic(audit) for audit in table.audits]
        before = self._folder / "prepare.jsonl"
        raw = _lines(before, JobRow) if before.is_file() else []
        raw += _lines(self._folder / "load.jsonl", JobRow)
        reference = self._reference or {
            row.picture: row.class_id
            for row in raw
            if row.phase == CALM and row.class_id is not None
        }
        rows = list(_joined(raw, table, reference))
        evidence = Evidence(
            rows=rows,
            workers=self._scenario.cluster.workers,
            audits=audits,
            faults=happened,
            usage=usage,
            loss_requested=readings.get("loss_requested", float("nan")),
            loss_observed=readings.get("loss_observed", float("nan")),
        )
        return Found(
            place=self._place,
            began_s=self._began.monotonic_s,
            rows=rows,
            audits=audits,
            faults=happened,
            metrics=measure(evidence),
            violations=checker.check(self._history(rows, table)),
            reference=reference,
            model=self._model,
            network=readings,
            counters=self._stats.get("counters", {}),
            schedule=schedule.digest(self._scenario, self._place),
        )

    def _monotonic(self, audit: Audit) -> Audit:
        """With times of the monotonic clock, which rows and faults have."""
        at, grant = self._began.from_wall, audit.grant
        moved = replace(grant, granted_s=at(grant.granted_s), ended_s=at(grant.ended_s))
        started_s = at(audit.started_s) if audit.started_s is not None else None
        return replace(audit, grant=moved, started_s=started_s)

    def _history(self, rows: list[JobRow], table: Ledger) -> History:
        return History(
            seen=[Seen(row.image, row.job, row.state, row.class_id) for row in rows],
            told=_told(self._folder / "events.jsonl"),
            rows=[entry.row for entry in table.entries],
            grants=[audit.grant for audit in table.audits],
            right={row.image: row.right_class for row in rows if row.right_class is not None},
            last_token=table.last_token,
        )


def _joined(raw: list[JobRow], table: Ledger, reference: dict[str, int]) -> Iterator[JobRow]:
    """Rows with what the table knows of their jobs."""
    entries = {entry.row.job: entry for entry in table.entries}
    for row in raw:
        right = row.right_class if row.right_class is not None else reference.get(row.picture)
        entry = entries.get(row.job or "")
        if entry is None:
            yield msgspec.structs.replace(row, right_class=right)
            continue
        queue_ms, compute_ms = _stages(entry)
        inside = (queue_ms or 0.0) + (compute_ms or 0.0)
        yield msgspec.structs.replace(
            row,
            right_class=right,
            attempts=entry.attempts,
            worker=entry.row.worker,
            queue_ms=queue_ms,
            compute_ms=compute_ms,
            link_ms=max(0.0, row.latency_ms - inside) if row.phase == COUNTED else None,
        )


def _stages(entry: ledger.Entry) -> tuple[float | None, float | None]:
    """Milliseconds in the queue, and of the worker's own work."""
    queue_ms = None
    if entry.started_at is not None:
        queue_ms = max(0.0, (entry.started_at - entry.submitted_at) * 1000.0)
    stages = [value for name, value in entry.timings_ms.items() if name != "queue"]
    if stages:
        return queue_ms, sum(stages)
    if entry.started_at is None or entry.finished_at is None:
        return queue_ms, None
    return queue_ms, max(0.0, (entry.finished_at - entry.started_at) * 1000.0)


def _told(path: Path) -> list[Told]:
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [
        Told(event["id"], event["state"], event["class_id"], event["worker"])
        for event in events
        if "id" in event
    ]


def _lines(path: Path, kind: type[JobRow]) -> list[JobRow]:
    return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().splitlines()]
