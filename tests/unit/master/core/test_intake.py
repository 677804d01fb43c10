"""Accepting submissions, on a real store: limits, parts, idempotency keys, abandoning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from master.config import Limits
from master.core.clock import Clock
from master.core.durable import Durable
from master.core.intake import Intake, IntakeHost, OpenUpload
from master.core.ledger import Ledger
from master.core.window import AHEAD_JOBS_MAX, Window
from master.store import open_store
from master.store.base import JobStore, KeyRow
from wire.messages import Message, Refused, Submit, Submitted, Upload

PIXELS = b"x" * 100


class Desk:
    """Intake on a store, with what it tells the rest of the core written down."""

    def __init__(self, store: JobStore, limits: Limits, drain_rate: float = 10.0) -> None:
        self.store = store
        self.accepted: list[int] = []
        self.cancelled: list[int] = []
        self.refusing: str | None = None
        self.queued = 0
        self.gather_s = 0.0
        self.window = Window(10_000)
        self.durable = Durable(asyncio.get_running_loop())
        self.ledger = Ledger()
        host = IntakeHost(
            accepted=lambda jobs, views, deadline: self.accepted.extend(jobs),
            cancel=lambda jobs, reason: self.cancelled.extend(jobs),
            replay=self._replay,
            drain_rate=lambda: drain_rate,
            queued=lambda: self.queued,
            gather_s=lambda: self.gather_s,
            refusing=lambda: self.refusing,
        )
        self.intake = Intake(
            store,
            self.durable,
            Clock.start(),
            limits,
            store.totals(),
            self.ledger,
            self.window,
            host,
        )

    def _replay(self, request: int, known: KeyRow, reply: Callable[[Message], None]) -> None:
        reply(Submitted(request=request, submission=f"s{known.submission}", jobs=[], replayed=True))

    async def ask(self, uploads: dict[int, OpenUpload], message: Submit) -> Any:
        """Submit, and wait for the answer."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.intake.submit(uploads, message, answer.set_result)
        return await asyncio.wait_for(answer, 10)


def _submit(count: int = 1, **fields: Any) -> Submit:
    images = [Upload(name=f"{n}.jpg", media_type="image/jpeg", data=PIXELS) for n in range(count)]
    return Submit(request=1, images=images, **fields)


@contextmanager
def _opened(folder: Path) -> Iterator[JobStore]:
    store = open_store(folder)
    try:
        yield store
    finally:
        store.close()


def _run(
    folder: Path, scenario: Callable[[Desk], Awaitable[None]], limits: Limits | None = None
) -> None:
    async def main() -> None:
        with _opened(folder) as store:
            await scenario(Desk(store, limits or Limits()))

    asyncio.run(main())


def test_accepted_is_durable_and_told_to_the_scheduler(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        answer = await desk.ask({}, _submit(3))
        assert isinstance(answer, Submitted)
        assert [job.state for job in answer.jobs] == ["queued"] * 3
        numbers = [int(job.id[1:]) for job in answer.jobs]
        assert desk.accepted == numbers
        assert desk.ledger.jobs == 3 and desk.ledger.total_bytes == 300

    _run(tmp_path, scenario)
    with _opened(tmp_path) as again:
        assert len(list(again.unfinished())) == 3


def test_no_images_and_too_large_images_are_refused_with_the_limit(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        none = await desk.ask({}, _submit(0))
        assert isinstance(none, Refused) and none.code == "no_image"
        large = await desk.ask({}, _submit(1))
        assert isinstance(large, Refused) and large.code == "image_too_large"
        assert "100" in large.message and "99" in large.message
        assert not desk.accepted

    _run(tmp_path, scenario, replace(Limits(), image_bytes_max=99))


def test_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        assert isinstance(await desk.ask({}, _submit(5)), Submitted)
        full = await desk.ask({}, _submit(30))
        assert isinstance(full, Refused) and full.code == "queue_full"
        # 30 jobs too many, 10 end each second.
        assert full.retry_after_s == 3.0

    _run(tmp_path, scenario, replace(Limits(), queue_jobs_max=5))


def test_images_far_behind_in_the_queue_leave_their_room_to_its_head(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.ask({}, _submit(2))
        assert len(desk.window) == 2
        desk.queued = 2 + AHEAD_JOBS_MAX
        await desk.ask({}, _submit(1))
        assert len(desk.window) == 3, "the gap can be read ahead at once"
        desk.queued = 4 + AHEAD_JOBS_MAX
        await desk.ask({}, _submit(1))
        assert len(desk.window) == 3

    _run(tmp_path, scenario)


def test_queue_is_bounded_by_bytes_too(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        assert isinstance(await desk.ask({}, _submit(2)), Submitted)
        full = await desk.ask({}, _submit(1))
        assert isinstance(full, Refused) and full.code == "queue_full"

    _run(tmp_path, scenario, replace(Limits(), queue_bytes_max=250))


def test_draining_core_accepts_nothing(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.refusing = "shutting down"
        answer = await desk.ask({}, _submit())
        assert isinstance(answer, Refused) and answer.code == "draining"
        assert answer.retry_after_s

    _run(tmp_path, scenario)


def test_same_key_and_body_is_answered_with_the_jobs_of_then(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        first = await desk.ask({}, _submit(key="k", digest="d1"))
        again = await desk.ask({}, _submit(key="k", digest="d1"))
        assert again.replayed and again.submission == first.submission
        other = await desk.ask({}, _submit(key="k", digest="d2"))
        assert isinstance(other, Refused) and other.code == "idempotency_mismatch"
        assert len(desk.accepted) == 1

    _run(tmp_path, scenario)


def test_equal_requests_at_the_same_moment_make_one_submission(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        answers = await asyncio.gather(
            *(desk.ask({}, _submit(key="k", digest="d")) for _ in range(8))
        )
        assert len({answer.submission for answer in answers}) == 1
        assert sorted(answer.replayed for answer in answers) == [False] + [True] * 7
        assert len(desk.accepted) == 1

    _run(tmp_path, scenario)


def test_parts_make_one_submission(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        uploads: dict[int, OpenUpload] = {}
        first = await desk.ask(uploads, _submit(2, last=False, key="k"))
        assert uploads and desk.intake.open_uploads == 1
        last = await desk.ask(uploads, _submit(1, submission=first.submission, digest="d"))
        assert last.submission == first.submission
        assert not uploads and desk.intake.open_uploads == 0
        again = await desk.ask(uploads, _submit(2, last=False, key="k"))
        assert again.replayed and again.submission == first.submission
        end = await desk.ask(uploads, _submit(1, submission=again.submission, digest="d"))
        assert end.replayed and len(desk.accepted) == 3

    _run(tmp_path, scenario)


def test_open_key_is_in_use_until_its_sender_is_gone(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        uploads: dict[int, OpenUpload] = {}
        await desk.ask(uploads, _submit(2, last=False, key="k"))
        other = await desk.ask({}, _submit(1, key="k", digest="d"))
        assert isinstance(other, Refused) and other.code == "key_in_use" and other.retry_after_s
        desk.intake.connection_lost(uploads)
        assert desk.cancelled == desk.accepted and len(desk.cancelled) == 2
        await desk.durable.idle()
        after = await desk.ask({}, _submit(1, key="k", digest="d"))
        assert isinstance(after, Submitted) and not after.replayed

    _run(tmp_path, scenario)


def test_part_still_on_its_way_when_its_sender_goes_is_cancelled(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        uploads: dict[int, OpenUpload] = {}
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        desk.intake.submit(uploads, _submit(2, last=False), answer.set_result)
        desk.intake.connection_lost(uploads)
        await asyncio.wait_for(answer, 10)
        assert desk.accepted == [1, 2]
        assert set(desk.cancelled) == {1, 2}

    _run(tmp_path, scenario)


def test_refused_part_gives_up_the_whole_submission(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        uploads: dict[int, OpenUpload] = {}
        first = await desk.ask(uploads, _submit(2, last=False))
        refused = await desk.ask(uploads, _submit(4, submission=first.submission))
        assert isinstance(refused, Refused) and refused.code == "queue_full"
        assert desk.cancelled == [1, 2] and not uploads

    _run(tmp_path, scenario, replace(Limits(), queue_jobs_max=5))
