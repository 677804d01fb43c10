"""The event stream: coalesced, numbered, resumable."""

from __future__ import annotations

import asyncio

import msgspec

from master.core.hub import (
    DIRTY_JOBS_MAX,
    FLUSH_JOBS_MAX,
    FLUSH_MAX_S,
    HOLD_S,
    UNREAD_BYTES_MAX,
    Hub,
)
from wire.messages import Events, JobView


def _view(job: int) -> JobView:
    return JobView(id=f"j{job}", submission="s1", name="", state="queued", submitted_at="")


class Reader:
    """Reads jobs back, and remembers how many at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def __call__(self, jobs: list[int]) -> list[JobView]:
        self.sizes.append(len(jobs))
        return [_view(job) for job in jobs]


def _hub(kept: int = 100) -> tuple[Hub, Reader, list[Events]]:
    reader, heard = Reader(), list[Events]()
    return Hub(7, kept, reader), reader, heard


def _ids(heard: list[Events]) -> list[str]:
    return [event.id for events in heard for event in events.events]


def test_a_burst_of_changes_of_one_job_is_one_event() -> None:
    hub, reader, heard = _hub()
    hub.subscribe(1, 5, None, heard.append)
    for _ in range(10):
        hub.job_changed(3)
    asyncio.run(hub.flush())
    assert reader.sizes == [1]
    assert [event.kind for event in heard[0].events] == ["job"]
    assert msgspec.json.decode(heard[0].events[0].data)["id"] == "j3"
    assert heard[0].request == 5


def test_flush_reads_a_bounded_number_at_a_time() -> None:
    hub, reader, heard = _hub(kept=10_000)
    hub.subscribe(1, 5, None, heard.append)
    for job in range(2 * FLUSH_JOBS_MAX + 1):
        hub.job_changed(job)
    asyncio.run(hub.flush())
    assert reader.sizes == [FLUSH_JOBS_MAX, FLUSH_JOBS_MAX, 1]
    assert len(_ids(heard)) == len(set(_ids(heard))) == 2 * FLUSH_JOBS_MAX + 1


def test_nothing_is_kept_before_anybody_listens() -> None:
    hub, reader, _ = _hub()
    hub.job_changed(3)
    hub.publish("worker", {})
    asyncio.run(hub.flush())
    assert reader.sizes == [] and not list(hub.newest())


def test_resume_gives_exactly_what_was_missed() -> None:
    hub, _, heard = _hub()
    hub.subscribe(1, 5, None, heard.append)
    for number in range(5):
        hub.publish("worker", {"n": number})
    again: list[Events] = []
    hub.subscribe(2, 6, _ids(heard)[1], again.append)
    assert _ids(again) == _ids(heard)[2:]
    newest: list[Events] = []
    hub.subscribe(3, 7, _ids(heard)[-1], newest.append)
    assert newest == []


def test_what_cannot_be_resumed_is_a_reset() -> None:
    hub, _, heard = _hub(kept=3)
    hub.subscribe(1, 5, None, heard.append)
    for number in range(9):
        hub.publish("worker", {"n": number})
    for after in (_ids(heard)[2], "6-9", "7-99", "rubbish", "7-", "7-x"):
        again: list[Events] = []
        hub.subscribe(2, 6, after, again.append)
        assert [(e.kind, e.id) for e in again[0].events] == [("reset", "7-9")], after


def test_a_connection_that_ended_hears_nothing() -> None:
    hub, _, heard = _hub()
    hub.subscribe(1, 5, None, heard.append)
    hub.unsubscribe(1)
    hub.publish("worker", {})
    assert heard == [] and hub.subscribers == 0


def test_a_slow_listener_holds_events_back_for_a_moment_and_then_gets_one_reset() -> None:
    hub, reader, heard = _hub()
    slow: list[Events] = []
    unread = [UNREAD_BYTES_MAX + 1]
    hub.subscribe(1, 5, None, heard.append)
    hub.subscribe(2, 6, None, slow.append, lambda: unread[0])
    hub.job_changed(1)
    assert not hub.ready(10.0)
    assert not hub.ready(10.0 + HOLD_S / 2)
    hub.job_changed(1)
    assert hub.ready(10.0 + HOLD_S)
    asyncio.run(hub.flush())
    assert reader.sizes == [1]
    assert len(heard) == 1
    assert slow == []
    assert hub.ready(20.0)  # who is behind already is not waited for again
    unread[0] = 0
    hub.publish("stats", {})
    assert [event.kind for events in slow for event in events.events] == ["reset"]
    hub.publish("stats", {})
    assert slow[-1].events[0].kind == "stats"


def test_a_flood_of_changes_is_one_reset_and_bounded() -> None:
    hub, reader, heard = _hub()
    hub.subscribe(1, 5, None, heard.append)
    for job in range(DIRTY_JOBS_MAX + 3):
        hub.job_changed(job)
    asyncio.run(hub.flush())
    assert [event.kind for event in heard[0].events] == ["reset"]
    assert reader.sizes == [3]


def test_many_changes_gather_longer() -> None:
    hub, _, heard = _hub()
    hub.subscribe(1, 5, None, heard.append)
    assert hub.pause_s(0.05) == 0.05
    for job in range(200):
        hub.job_changed(job)
    assert hub.pause_s(0.05) == 0.1
    for job in range(5000):
        hub.job_changed(job)
    assert hub.pause_s(0.05) == FLUSH_MAX_S
