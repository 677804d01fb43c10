"""Any sequence of writes, crashes and reopenings agrees with a dictionary.

A crash is a copy of the directory, taken while the store runs and after what was
asked for was answered, and opened in its place: everything answered must be there.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from master.states import TERMINAL, JobState, Outcome
from master.store import SqliteStore, StoreConfig, open_store
from master.store.base import JobEnd
from master.store.check import problems
from tests.unit.master.store.make import SECOND, attempt, end, image, part

DONE_S = 20.0
CONFIG = StoreConfig(
    segment_bytes=4000,
    min_free_bytes=0,
    group_interval_s=0,
    checkpoint_rows=40,
    wall=lambda: SECOND,
)
COUNTED = (Outcome.ERRORED, Outcome.EXPIRED, Outcome.LOST)
SIZES = st.integers(0, 3000)


@dataclass
class ModelJob:
    """What we believe of a job."""

    submission: int
    size_bytes: int
    end: JobEnd | None = None
    blamed: list[str] = field(default_factory=list)
    tries: int = 0


@dataclass
class ModelSubmission:
    """What we believe of a submission."""

    open: bool
    key: str | None


class StoreMachine(RuleBasedStateMachine):
    """The rules; `jobs` and `submissions` are the dictionary."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="store"))
        self.lives = 1
        self.store: SqliteStore = open_store(self.root / "1", CONFIG)
        self.jobs: dict[int, ModelJob] = {}
        self.submissions: dict[int, ModelSubmission] = {}
        self.next_job = self.next_submission = self.next_token = 1

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            found = problems(self.root / str(self.lives))
            shutil.rmtree(self.root)
            assert found == []

    # --- rules -----------------------------------------------------------------------------

    @rule(sizes=st.lists(SIZES, max_size=4), last=st.booleans(), keyed=st.booleans())
    def submit(self, sizes: list[int], last: bool, keyed: bool) -> None:
        number = self.next_submission
        self.next_submission += 1
        key = f"key{number}" if keyed else None
        self.submissions[number] = ModelSubmission(not last, key)
        self._add(number, sizes, first=True, last=last, key=key)

    @precondition(lambda self: any(sub.open for sub in self.submissions.values()))
    @rule(data=st.data(), sizes=st.lists(SIZES, max_size=3), last=st.booleans())
    def go_on(self, data: st.DataObject, sizes: list[int], last: bool) -> None:
        open_ones = [number for number, sub in self.submissions.items() if sub.open]
        number = data.draw(st.sampled_from(open_ones))
        self.submissions[number].open = not last
        self._add(number, sizes, first=False, last=last, key=None)

    def _add(
        self, number: int, sizes: list[int], *, first: bool, last: bool, key: str | None
    ) -> None:
        futures = []
        for index, size in enumerate(sizes or [None]):
            job = self.next_job
            jobs = [] if size is None else [job]
            if size is not None:
                self.next_job += 1
                self.jobs[job] = ModelJob(number, size)
            at_start, at_end = index == 0, index == max(0, len(sizes) - 1)
            futures.append(
                self.store.add(
                    part(
                        number,
                        jobs,
                        first=first and at_start,
                        last=last and at_end,
                        key=key if at_start else None,
                        size_bytes=size or 0,
                    )
                )
            )
        for future in futures:
            future.result(DONE_S)

    @precondition(lambda self: self.next_job > 1)
    @rule(data=st.data(), state=st.sampled_from(sorted(TERMINAL)), times=st.integers(1, 3))
    def finish(self, data: st.DataObject, state: JobState, times: int) -> None:
        job = data.draw(st.integers(1, self.next_job - 1))
        ends = [end(job, state, attempts=number) for number in range(times)]
        answers = [future.result(DONE_S) for future in [self.store.finish(e) for e in ends]]
        known = self.jobs.get(job)
        takes = known is not None and known.end is None
        assert answers == [takes] + [False] * (times - 1)
        if known is not None and takes:
            known.end = ends[0]

    @precondition(lambda self: self.next_job > 1)
    @rule(data=st.data(), outcome=st.sampled_from(sorted(Outcome)), blamed=st.booleans())
    def record(self, data: st.DataObject, outcome: Outcome, blamed: bool) -> None:
        job = data.draw(st.integers(1, self.next_job - 1))
        token = self.next_token
        self.next_token += 1
        self.store.reserve_tokens(token)
        row = attempt(job, token, outcome, worker=f"w{token}", blamed=blamed)
        self.store.record(row).result(DONE_S)
        if job in self.jobs and outcome in COUNTED:
            self.jobs[job].tries += 1
            self.jobs[job].blamed += [f"w{token}"] if blamed else []

    @rule(data=st.data(), all_of_them=st.booleans())
    def remove(self, data: st.DataObject, all_of_them: bool) -> None:
        asked = None
        if not all_of_them:
            asked = data.draw(st.lists(st.integers(1, self.next_job), max_size=5))
        ended = [job for job, known in self.jobs.items() if known.end is not None]
        gone = [job for job in ended if asked is None or job in asked]
        assert self.store.remove(asked).result(DONE_S) == sorted(gone)
        for job in gone:
            self._forget(job)

    def _forget(self, job: int) -> None:
        number = self.jobs.pop(job).submission
        empty = all(known.submission != number for known in self.jobs.values())
        if empty and not self.submissions[number].open:
            del self.submissions[number]

    @precondition(lambda self: any(sub.open for sub in self.submissions.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        open_ones = [number for number, sub in self.submissions.items() if sub.open]
        number = data.draw(st.sampled_from(open_ones))
        self.store.seal_abandoned(number).result(DONE_S)
        self.submissions[number] = ModelSubmission(False, None)
        if all(known.submission != number for known in self.jobs.values()):
            del self.submissions[number]

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        epoch = self.store.totals().epoch
        if crash:
            shutil.copytree(self.root / str(self.lives), self.root / str(self.lives + 1))
            self.lives += 1
        self.store.close()
        self.store = open_store(self.root / str(self.lives), CONFIG)
        assert self.store.totals().epoch == epoch + 1
        self._abandon()

    def _abandon(self) -> None:
        for number in [number for number, sub in self.submissions.items() if sub.open]:
            mine = [known for known in self.jobs.values() if known.submission == number]
            self.submissions[number] = ModelSubmission(False, None)
            if not mine:
                del self.submissions[number]
            for known in mine:
                if known.end is None:
                    known.end = end(0, JobState.CANCELLED, error_code="submission_abandoned")

    # --- what must hold ----------------------------------------------------------------------

    @invariant()
    def rows_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        rows = self.store.page(
            states=[], include_open=False, submission=None, before=None, limit=10_000
        )
        assert [row.job for row in rows] == sorted(self.jobs, reverse=True)
        for row in rows:
            known = self.jobs[row.job]
            assert (row.submission, row.size_bytes) == (known.submission, known.size_bytes)
            assert row.state == (known.end.state if known.end else None)
            assert row.error_code == (known.end.error_code if known.end else None)
            assert self.store.image(row.job)[1] == image(row.job, known.size_bytes)

    @invariant()
    def figures_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        totals = self.store.totals()
        assert (totals.next_job, totals.next_submission) == (self.next_job, self.next_submission)
        assert totals.next_token == self.next_token
        assert totals.stored_bytes == sum(known.size_bytes for known in self.jobs.values())
        states = [known.end.state.value if known.end else "open" for known in self.jobs.values()]
        assert totals.counts == {state: states.count(state) for state in totals.counts}

    @invariant()
    def recovery_agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        found = [(row.job, row.attempts, list(row.blamed)) for row in self.store.unfinished()]
        open_ones = sorted(job for job, known in self.jobs.items() if known.end is None)
        assert found == [(job, self.jobs[job].tries, self.jobs[job].blamed) for job in open_ones]

    @invariant()
    def submissions_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        for number in range(1, self.next_submission):
            row, known = self.store.submission(number), self.submissions.get(number)
            assert (row is None) == (known is None)
            if row is not None and known is not None:
                assert row.open == known.open
                if known.key is not None:
                    found = self.store.key(known.key)
                    assert found is not None
                    assert (found.submission, found.open) == (number, known.open)


StoreMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestStoreMachine = StoreMachine.TestCase
