"""The last jobs in memory: what people see of them is what the store would say."""

from __future__ import annotations

from random import Random

from master.core.names import job_id
from master.core.recent import Recent
from master.core.views import Views
from master.scheduler import Scheduler, SchedulerConfig
from master.scheduler.events import JobsAccepted
from master.states import JobState
from master.store.base import JobEnd, JobRow
from wire.messages import JobView

SECOND = 1_700_000_000.0
TOP5 = b'[{"label":"hen","class_id":8,"confidence":0.9}]'


def _recent(jobs_max: int = 100) -> tuple[Recent, Views, Scheduler]:
    scheduler = Scheduler(SchedulerConfig(), Random(1))
    views = Views(scheduler, lambda key: key, lambda moment: SECOND + moment)
    return Recent(views, jobs_max), views, scheduler


def _row(job: int, end: JobEnd | None = None) -> JobRow:
    return JobRow(
        job, 1, "a.jpg", "image/jpeg", 9, SECOND, None, end.state if end else None,
        end.attempts if end else 0, None, end.finished_at if end else None,
        end.worker if end else None, end.model if end else None, end.top5 if end else None,
        end.timings if end else None, end.error_code if end else None,
        end.error_message if end else "",
    )  # fmt: skip


def _accept(recent: Recent, views: Views, scheduler: Scheduler, *jobs: int) -> list[JobView]:
    scheduler.handle(JobsAccepted(jobs), 0.0)
    shown = views.jobs(_row(job) for job in jobs)
    recent.accepted(jobs, shown)
    return shown


def test_a_queued_job_and_one_that_ended_look_like_their_rows() -> None:
    recent, views, scheduler = _recent()
    queued = _accept(recent, views, scheduler, 1, 2)
    assert recent.all_of([2, 1]) == [queued[1], queued[0]]
    for end in (
        JobEnd(1, JobState.SUCCEEDED, 1, SECOND + 2, None, "w", "m", 7, TOP5, b'{"infer":1.5}'),
        JobEnd(2, JobState.FAILED, 2, SECOND + 3, error_code="poison", error_message="3 deaths"),
    ):
        recent.ended(end)
        assert recent.view(end.job) == views.job(_row(end.job, end))
        assert recent.view(end.job) is recent.view(end.job)


def test_a_job_whose_outcome_is_not_durable_yet_is_leased() -> None:
    recent, views, scheduler = _recent()
    (shown,) = _accept(recent, views, scheduler, 1)
    scheduler = Scheduler(SchedulerConfig(), Random(1))
    views = Views(scheduler, lambda key: key, lambda moment: moment)
    assert views.live(1, shown).state == "leased"


def test_unknown_removed_and_old_jobs_are_left_to_the_store() -> None:
    recent, views, scheduler = _recent(jobs_max=2)
    _accept(recent, views, scheduler, 1, 2, 3)
    recent.ended(JobEnd(1, JobState.CANCELLED, 0, SECOND))
    assert recent.view(1) is None
    assert recent.all_of([2, 1]) is None
    assert [view.id for view in recent.all_of([2, 3]) or []] == [job_id(2), job_id(3)]
    recent.forget([2])
    assert recent.all_of([2]) is None
