"""What the service makes of the agent's effects: one write a turn, and nothing begun unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.worker.test_config import Build, build
from wire import messages as m
from worker import events as e
from worker.faults import NULL_ENGINE
from worker.service import Service

__all__ = ["build"]  # the fixture

RESULT = m.Result(job="j1", token=1, model="one")


class Recorder:
    """In place of link and backend: what was sent, write by write, and what was begun."""

    def __init__(self) -> None:
        self.linked = True
        self.writes: list[tuple[m.Message, ...]] = []
        self.begun: list[str] = []

    def send(self, *messages: m.Message) -> bool:
        assert not self.begun, "a lease was begun before the master heard of it"
        self.writes.append(messages)
        return self.linked

    def submit(self, lease: e.Lease) -> None:
        self.begun.append(lease.assign.job)


@pytest.fixture
def service(build: Build, tmp_path: Path) -> tuple[Service, Recorder]:
    config = build("h", "--cache", str(tmp_path), "--engine", NULL_ENGINE, "--enable-fault-hooks")
    service, recorder = Service(config, "w", "i", "test"), Recorder()
    service._link = recorder  # type: ignore[assignment]
    service._backend = recorder  # type: ignore[assignment]
    return service, recorder


def _lease(job: str) -> e.Lease:
    return e.Lease(m.Assign(job=job, token=2, attempt=1, name="x", image=b"x"), 0.0, None)


def test_a_result_and_the_next_starts_are_one_write_and_then_they_begin(
    service: tuple[Service, Recorder],
) -> None:
    one, seen = service
    two, three = _lease("j2"), _lease("j3")
    assert one._carry_out([e.Send(RESULT), e.Begin((two,)), e.Begin((three,))]) is None
    assert seen.writes == [(RESULT, m.Started(leases=[two.ref, three.ref]))]
    assert seen.begun == ["j2", "j3"]


def test_what_could_not_be_announced_is_not_begun(service: tuple[Service, Recorder]) -> None:
    one, seen = service
    seen.linked = False
    one._carry_out([e.Begin((_lease("j2"),))])
    assert seen.begun == []
    assert one._next_events() == [e.NotBegun(("j2",))]
