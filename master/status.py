"""`master status` and `master model set`: the running core, asked from the terminal."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from master.token import read_token
from wire.blocking import BlockingConnection, connect
from wire.errors import EnvironmentFault
from wire.messages import (
    GetModel,
    GetStats,
    GetWorkers,
    Hello,
    Message,
    ModelView,
    Refused,
    SetModel,
    Stats,
    Workers,
    WorkerView,
)

REFRESH_S = 1.0
ANSWER_TIMEOUT_S = 5.0
# A download of weights may be part of it.
MODEL_TIMEOUT_S = 900.0
COLOURS = {"alive": "green", "suspect": "yellow", "dead": "red"}
JOB_STATES = ("queued", "leased", "backoff", "succeeded", "failed", "cancelled")


def run(address: str, token_file: Path, *, watch: bool, as_json: bool) -> int:
    """Show the cluster once, or again and again; the exit status."""
    connection = _admin(address, token_file)
    try:
        if as_json:
            sys.stdout.write(json.dumps(_snapshot(connection), indent=2) + "\n")
        elif watch:
            _watch(connection)
        else:
            Console().print(_picture(connection))
    finally:
        connection.close()
    return 0


def set_model(address: str, token_file: Path, name: str, weights: Path | None) -> int:
    """Move the running cluster to another model; the exit status."""
    file = str(weights.absolute()) if weights else None
    connection = _admin(address, token_file)
    try:
        question = SetModel(request=1, model=name, weights=file)
        answer = _ask(connection, question, MODEL_TIMEOUT_S)
    finally:
        connection.close()
    assert isinstance(answer, ModelView)
    sys.stdout.write(f"the cluster moves to {answer.card.id}, {len(answer.card.classes)} classes\n")
    if answer.warning:
        sys.stdout.write(f"{answer.warning}\n")
    return 0


def _admin(address: str, token_file: Path) -> BlockingConnection:
    hello = Hello(versions=[1], role="admin", name="master-admin", incarnation=str(time.time_ns()))
    return connect(
        address,
        read_token(token_file),
        hello,
        connect_timeout_s=ANSWER_TIMEOUT_S,
        handshake_timeout_s=ANSWER_TIMEOUT_S,
    )


def _watch(connection: BlockingConnection) -> None:
    with Live(_picture(connection), auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(_picture(connection), refresh=True)


def _ask(
    connection: BlockingConnection, message: Message, timeout_s: float = ANSWER_TIMEOUT_S
) -> Message:
    connection.send(message)
    answer = connection.receive(timeout_s)
    if answer is None:
        raise EnvironmentFault(
            "no_answer", f"the core gave no answer within {timeout_s:.0f} s; see its log"
        )
    if isinstance(answer, Refused):
        raise EnvironmentFault(answer.code, answer.message)
    return answer


def _snapshot(connection: BlockingConnection) -> dict[str, object]:
    questions: dict[str, Message] = {
        "stats": GetStats(request=1),
        "workers": GetWorkers(request=2),
        "model": GetModel(request=3),
    }
    answers = {name: _ask(connection, question) for name, question in questions.items()}
    shown: dict[str, object] = msgspec.to_builtins(answers)
    return shown


def _picture(connection: BlockingConnection) -> Group:
    stats = _ask(connection, GetStats(request=1))
    workers = _ask(connection, GetWorkers(request=2))
    assert isinstance(stats, Stats) and isinstance(workers, Workers)
    return Group(_jobs_table(stats), _rates_line(stats), "", _workers_table(workers.workers))


def _jobs_table(stats: Stats) -> Table:
    table = Table(title="Jobs", title_justify="left", box=None, pad_edge=False)
    for state in JOB_STATES:
        table.add_column(state, justify="right", no_wrap=True)
    table.add_row(*(str(stats.counts.get(state, 0)) for state in JOB_STATES))
    return table


def _rates_line(stats: Stats) -> str:
    latency = ", ".join(f"{name} {value:.0f} ms" for name, value in stats.latency_ms.items())
    fault = stats.storage_fault
    fault = f"\nthe disk takes no writes: {fault}" if fault else ""
    return (
        f"in {stats.accept_rate_per_s:.1f}/s, out {stats.drain_rate_per_s:.1f}/s"
        f"{', ' + latency if latency else ''}; core {stats.resident_bytes / 1e6:.0f} MB, "
        f"up {stats.uptime_s:.0f} s"
        f"{fault}"
    )


def _workers_table(workers: list[WorkerView]) -> Table:
    table = Table(title="Workers", title_justify="left", box=None, pad_edge=False)
    for name in ("name", "state", "model"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("held/slots", "rate/s", "done", "phi", "rtt ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for worker in workers:
        rtt = "" if worker.rtt_ms is None else f"{worker.rtt_ms:.1f}"
        table.add_row(
            worker.name,
            f"[{COLOURS[worker.liveness]}]{_state(worker)}[/]",
            worker.model or (worker.fault.code if worker.fault else ""),
            f"{worker.held}/{worker.slots}",
            f"{worker.rate_per_s:.1f}",
            str(worker.completed),
            f"{worker.phi:.1f}",
            rtt,
        )
    if not workers:
        table.add_row("none; `worker join` brings one", *[""] * 7)
    return table


def _state(worker: WorkerView) -> str:
    if worker.liveness != "alive":
        return worker.liveness
    if worker.admission != "accepting":
        return worker.admission
    return "ready" if worker.ready else "loading"
