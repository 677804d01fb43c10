"""What every `JobStore` must do. A store joins by subclassing `StoreContract` with an `opener`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from master.states import TERMINAL, JobState, Outcome
from master.store.base import JobStore, KeyRow, Unfinished
from tests.unit.master.store.make import SECOND, attempt, end, image, part
from wire.errors import LocalFault, LookoutError

Opener = Callable[[Path], JobStore]
DONE_S = 20.0


class StoreContract:
    """Tests against `opener`, a fixture of the subclass that opens a store in a directory."""

    @pytest.fixture
    def store(self, opener: Opener, tmp_path: Path) -> Iterator[JobStore]:
        store = opener(tmp_path / "data")
        yield store
        store.close()

    @pytest.fixture
    def reopen(self, opener: Opener, tmp_path: Path) -> Iterator[Callable[[JobStore], JobStore]]:
        opened: list[JobStore] = []

        def again(store: JobStore) -> JobStore:
            store.close()
            opened.append(opener(tmp_path / "data"))
            return opened[-1]

        yield again
        for store in opened:
            store.close()

    # --- accepting -------------------------------------------------------------------------

    def test_a_fresh_store_is_empty(self, store: JobStore) -> None:
        totals = store.totals()
        assert (totals.next_job, totals.next_submission, totals.next_token) == (1, 1, 1)
        assert totals.epoch == 1
        assert totals.stored_bytes == 0
        assert totals.counts == {"open": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
        assert list(store.unfinished()) == []

    def test_an_accepted_part_is_all_there(self, store: JobStore) -> None:
        store.add(part(1, [1, 2, 3], deadline_at=SECOND + 60)).result(DONE_S)
        for job in (1, 2, 3):
            row, data = store.image(job)
            assert data == image(job)
            assert (row.job, row.submission, row.name) == (job, 1, f"{job}.jpg")
            assert (row.media_type, row.size_bytes) == ("image/jpeg", 1000)
            assert (row.submitted_at, row.deadline_at) == (SECOND, SECOND + 60)
            assert (row.state, row.finished_at, row.attempts) == (None, None, 0)
        assert store.totals().counts["open"] == 3
        assert store.totals().stored_bytes == 3000
        assert store.totals().next_job == 4

    def test_a_memoryview_is_as_good_as_bytes(self, store: JobStore) -> None:
        given = part(1, [1])
        view = memoryview(b"before" + image(1) + b"after")[6:-5]
        job = type(given.jobs[0])(1, "1.jpg", "image/jpeg", view)
        store.add(type(given)(1, [job], SECOND, None, True, True)).result(DONE_S)
        assert store.image(1)[1] == image(1)

    def test_an_empty_image_is_kept(self, store: JobStore) -> None:
        store.add(part(1, [1], size_bytes=0)).result(DONE_S)
        assert store.image(1)[1] == b""

    def test_a_refused_part_leaves_nothing_and_takes_nobody_with_it(self, store: JobStore) -> None:
        store.add(part(1, [1])).result(DONE_S)
        before = store.add(part(2, [2]))
        wrong = store.add(part(3, [3, 1]))  # the number 1 is taken
        behind = store.add(part(4, [4]))
        with pytest.raises(LookoutError):
            wrong.result(DONE_S)
        before.result(DONE_S)
        behind.result(DONE_S)
        assert [row.job for row in store.jobs([1, 2, 3, 4])] == [1, 2, 4]
        assert store.submission(3) is None
        assert store.totals().counts["open"] == 3
        assert store.totals().stored_bytes == 3000
        assert [store.image(job)[1] for job in (1, 2, 4)] == [image(1), image(2), image(4)]

    def test_a_part_of_an_unknown_submission_is_refused(self, store: JobStore) -> None:
        with pytest.raises(LookoutError):
            store.add(part(7, [1], first=False)).result(DONE_S)
        assert store.jobs([1]) == []

    def test_futures_resolve_in_the_order_asked(self, store: JobStore) -> None:
        order: list[int] = []
        futures = [store.add(part(number, [number])) for number in range(1, 101)]
        for number, future in enumerate(futures, 1):
            future.add_done_callback(lambda _, number=number: order.append(number))
        futures[-1].result(DONE_S)
        assert sorted(order) == list(range(1, 101))
        durable_late = [number for number, future in enumerate(futures, 1) if not future.done()]
        assert durable_late == []

    def test_what_a_future_says_is_visible_at_once(self, store: JobStore) -> None:
        seen: list[int] = []
        for number in range(1, 21):
            future = store.add(part(number, [number]))
            future.add_done_callback(lambda _, n=number: seen.append(store.image(n)[0].job))
            future.result(DONE_S)
        store.reserve_tokens(1).result(DONE_S)  # the last callback has run by then
        assert seen == list(range(1, 21))

    # --- ending ----------------------------------------------------------------------------

    def test_an_outcome_is_kept_as_given(self, store: JobStore) -> None:
        store.add(part(1, [1])).result(DONE_S)
        given = end(
            1,
            attempts=2,
            started_at=SECOND + 0.5,
            worker="w1",
            model="m",
            token=9,
            top5=b'[{"label":"cat"}]',
            timings=b'{"infer":1.5}',
        )
        assert store.finish(given).result(DONE_S) is True
        (row,) = store.jobs([1])
        assert (row.state, row.attempts, row.worker, row.model) == (given.state, 2, "w1", "m")
        assert (row.started_at, row.finished_at) == (given.started_at, given.finished_at)
        assert (row.top5, row.timings) == (given.top5, given.timings)
        assert (row.error_code, row.error_message) == (None, "")

    @pytest.mark.parametrize("state", sorted(TERMINAL))
    def test_the_first_outcome_stays(self, store: JobStore, state: JobState) -> None:
        store.add(part(1, [1]))
        first = store.finish(end(1, state, error_code="a"))
        others = [store.finish(end(1, other, error_code="b")) for other in sorted(TERMINAL)]
        assert first.result(DONE_S) is True
        assert [other.result(DONE_S) for other in others] == [False, False, False]
        assert store.finish(end(1, JobState.FAILED)).result(DONE_S) is False
        (row,) = store.jobs([1])
        assert (row.state, row.error_code) == (state, "a")
        assert store.totals().counts == {
            "open": 0,
            "succeeded": 0,
            "failed": 0,
            "cancelled": 0,
            state: 1,
        }

    def test_an_unknown_job_can_not_end(self, store: JobStore) -> None:
        assert store.finish(end(99)).result(DONE_S) is False

    def test_only_a_terminal_state_is_an_outcome(self, store: JobStore) -> None:
        store.add(part(1, [1])).result(DONE_S)
        neighbour = store.add(part(2, [2]))
        with pytest.raises(LookoutError):
            store.finish(end(1, JobState.LEASED)).result(DONE_S)
        neighbour.result(DONE_S)
        assert store.jobs([1])[0].state is None

    # --- recovery --------------------------------------------------------------------------

    def test_open_jobs_come_back_with_their_history(
        self, store: JobStore, reopen: Callable[[JobStore], JobStore]
    ) -> None:
        store.add(part(1, [1, 2, 3, 4], deadline_at=SECOND + 9))
        store.record(attempt(2, 1, worker="a", blamed=True))
        store.record(attempt(2, 3, worker="b", blamed=True))
        store.record(attempt(3, 2, Outcome.ERRORED))
        store.record(attempt(3, 4, Outcome.RELEASED))
        store.record(attempt(3, 5, Outcome.EXPIRED))
        store.record(attempt(3, 6, Outcome.EXPIRED, started_at=None))
        store.record(attempt(1, 7, Outcome.LOST, started_at=None))
        store.record(attempt(1, 8, Outcome.CANCELLED))
        store.finish(end(4))
        again = reopen(store)
        assert list(again.unfinished()) == [
            Unfinished(1, 1000, SECOND + 9, 0, ()),
            Unfinished(2, 1000, SECOND + 9, 2, ("a", "b")),
            Unfinished(3, 1000, SECOND + 9, 2, ()),
        ]

    def test_numbers_are_never_given_twice(
        self, store: JobStore, reopen: Callable[[JobStore], JobStore]
    ) -> None:
        store.add(part(5, [7, 8]))
        store.finish(end(7))
        store.finish(end(8))
        store.reserve_tokens(100)
        store.reserve_tokens(50)
        assert store.remove(None).result(DONE_S) == [7, 8]
        before = store.totals()
        again = reopen(store).totals()
        assert (before.next_job, before.next_submission, before.next_token) == (9, 6, 101)
        assert (again.next_job, again.next_submission, again.next_token) == (9, 6, 101)
        assert again.epoch == before.epoch + 1

    def test_an_open_submission_of_an_earlier_life_is_cancelled(
        self, store: JobStore, reopen: Callable[[JobStore], JobStore]
    ) -> None:
        store.add(part(1, [1, 2], last=False, key="k"))
        store.finish(end(1))
        store.add(part(2, [3], key="whole", digest="d"))
        again = reopen(store)
        first, second, third = again.jobs([1, 2, 3])
        assert first.state is JobState.SUCCEEDED
        assert (second.state, second.error_code) == (JobState.CANCELLED, "submission_abandoned")
        assert second.finished_at is not None
        assert third.state is None
        assert again.key("k") is None
        assert again.key("whole") == KeyRow("whole", 2, "d", False)
        abandoned = again.submission(1)
        assert abandoned is not None
        assert not abandoned.open
        assert again.totals().counts == {"open": 1, "succeeded": 1, "failed": 0, "cancelled": 1}

    def test_closing_writes_what_was_asked_for(
        self, store: JobStore, reopen: Callable[[JobStore], JobStore]
    ) -> None:
        futures = [store.add(part(number, [number])) for number in range(1, 201)]
        ends = [store.finish(end(number)) for number in range(1, 101)]
        again = reopen(store)
        assert all(future.done() and future.exception() is None for future in futures)
        assert all(future.result() for future in ends)
        assert again.totals().counts["open"] == 100
        assert again.totals().counts["succeeded"] == 100
        assert [again.image(job)[1] for job in (1, 200)] == [image(1), image(200)]

    def test_a_closed_store_says_so(self, store: JobStore) -> None:
        store.close()
        with pytest.raises(LocalFault):
            store.add(part(1, [1]))
        with pytest.raises(LocalFault):
            store.jobs([1])
        store.close()

    # --- submissions and keys --------------------------------------------------------------

    def test_a_submission_in_parts_is_open_until_its_last(self, store: JobStore) -> None:
        store.add(part(1, [1, 2], last=False, key="k")).result(DONE_S)
        row, key = store.submission(1), store.key("k")
        assert row is not None
        assert (row.open, row.total, row.submitted_at) == (True, 2, SECOND)
        assert key == KeyRow("k", 1, None, True)
        store.add(part(1, [3], first=False, last=False)).result(DONE_S)
        store.add(part(1, [], first=False, digest="d")).result(DONE_S)
        row = store.submission(1)
        assert row is not None
        assert (row.open, row.total) == (False, 3)
        assert store.key("k") == KeyRow("k", 1, "d", False)
        assert store.submission_jobs(1) == [1, 2, 3]

    def test_a_submission_counts_its_own_jobs(self, store: JobStore) -> None:
        store.add(part(1, [1, 2, 3, 4]))
        store.add(part(2, [5]))
        store.finish(end(1))
        store.finish(end(2, JobState.FAILED))
        store.finish(end(3, JobState.CANCELLED)).result(DONE_S)
        row = store.submission(1)
        assert row is not None
        assert row.total == 4
        assert row.counts == {"open": 1, "succeeded": 1, "failed": 1, "cancelled": 1}
        assert store.submission(3) is None
        assert store.submission_jobs(3) == []

    def test_a_key_is_seen_before_it_is_durable(self, store: JobStore) -> None:
        future = store.add(part(1, [1], key="k", digest="d", size_bytes=4_000_000))
        at_once = store.key("k")
        assert at_once is not None
        assert at_once.submission == 1
        future.result(DONE_S)
        assert store.key("k") == KeyRow("k", 1, "d", False)
        assert store.key("other") is None

    def test_a_key_belongs_to_one_submission(self, store: JobStore) -> None:
        store.add(part(1, [1], key="k")).result(DONE_S)
        with pytest.raises(LookoutError):
            store.add(part(2, [2], key="k")).result(DONE_S)
        assert store.jobs([2]) == []
        key = store.key("k")
        assert key is not None
        assert key.submission == 1

    def test_giving_up_closes_a_submission_and_frees_its_key(self, store: JobStore) -> None:
        store.add(part(1, [1], last=False, key="k"))
        store.finish(end(1, JobState.CANCELLED))
        store.seal_abandoned(1).result(DONE_S)
        row = store.submission(1)
        assert row is not None
        assert not row.open
        assert store.key("k") is None
        store.add(part(2, [2], key="k")).result(DONE_S)

    # --- removing --------------------------------------------------------------------------

    def test_only_ended_jobs_are_removed(self, store: JobStore) -> None:
        store.add(part(1, [1, 2]))
        store.add(part(2, [3]))
        store.finish(end(1))
        store.finish(end(3, JobState.FAILED))
        store.record(attempt(1, 1))
        assert store.remove([3, 2, 1, 77]).result(DONE_S) == [1, 3]
        for gone in (1, 3, 77):
            with pytest.raises(KeyError):
                store.image(gone)
        assert store.image(2)[1] == image(2)
        assert store.submission(2) is None
        assert store.submission_jobs(1) == [2]
        assert store.totals().counts == {"open": 1, "succeeded": 0, "failed": 0, "cancelled": 0}
        assert store.totals().stored_bytes == 1000

    def test_all_ended_jobs_are_removed_at_once(self, store: JobStore) -> None:
        for number in range(1, 11):
            store.add(part(number, [number]))
        for number in range(1, 8):
            store.finish(end(number))
        assert store.remove(None).result(DONE_S) == [1, 2, 3, 4, 5, 6, 7]
        assert store.remove(None).result(DONE_S) == []
        assert store.remove([]).result(DONE_S) == []
        assert [row.job for row in store.jobs(range(1, 11))] == [8, 9, 10]

    def test_what_ends_after_a_removal_was_asked_for_is_kept(self, store: JobStore) -> None:
        store.add(part(1, [1, 2]))
        store.finish(end(1))
        removed = store.remove(None)
        store.finish(end(2)).result(DONE_S)
        assert removed.result(DONE_S) == [1]
        assert [row.job for row in store.jobs([1, 2])] == [2]

    def test_the_audit_of_a_removed_job_is_let_go(self, store: JobStore) -> None:
        store.add(part(1, [1]))
        store.finish(end(1))
        store.remove([1]).result(DONE_S)
        store.record(attempt(1, 1)).result(DONE_S)  # late, and not an error

    # --- reading ---------------------------------------------------------------------------

    def test_rows_come_in_the_order_asked(self, store: JobStore) -> None:
        store.add(part(1, list(range(1, 1201)), size_bytes=1)).result(DONE_S)
        asked = [3, 1, 99_999, 2]
        assert [row.job for row in store.jobs(asked)] == [3, 1, 2]
        assert store.jobs([]) == []
        many = list(range(1200, 0, -1))
        assert [row.job for row in store.jobs(many)] == many

    @pytest.fixture
    def mixed(self, store: JobStore) -> JobStore:
        """Jobs 1 to 12 in submissions 1 (odd) and 2 (even); 1-3 succeeded, 4-6 failed, 7 not."""
        store.add(part(1, range(1, 13, 2)))
        store.add(part(2, range(2, 13, 2)))
        for job in (1, 2, 3):
            store.finish(end(job))
        for job in (4, 5, 6):
            store.finish(end(job, JobState.FAILED))
        store.finish(end(7, JobState.CANCELLED)).result(DONE_S)
        return store

    @pytest.mark.parametrize(
        ("states", "include_open", "submission", "expected"),
        [
            ([], False, None, [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
            ([], True, None, [12, 11, 10, 9, 8]),
            (["succeeded"], False, None, [3, 2, 1]),
            (["succeeded", "cancelled"], False, None, [7, 3, 2, 1]),
            (["failed"], True, None, [12, 11, 10, 9, 8, 6, 5, 4]),
            ([], False, 1, [11, 9, 7, 5, 3, 1]),
            ([], True, 2, [12, 10, 8]),
            (["failed", "succeeded", "cancelled"], True, 2, [12, 10, 8, 6, 4, 2]),
            (["cancelled"], False, 2, []),
            ([], False, 3, []),
        ],
    )
    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_pages_follow_each_other(
        self,
        mixed: JobStore,
        states: list[str],
        include_open: bool,
        submission: int | None,
        expected: list[int],
        limit: int,
    ) -> None:
        found: list[int] = []
        before = None
        while True:
            rows = mixed.page(
                states=[JobState(state) for state in states],
                include_open=include_open,
                submission=submission,
                before=before,
                limit=limit,
            )
            if not rows:
                break
            assert len(rows) <= limit
            found += [row.job for row in rows]
            before = found[-1]
        assert found == expected

    def test_readers_and_writers_do_not_wait_for_each_other(self, store: JobStore) -> None:
        """Four threads read whatever is durable while 100 jobs are written."""
        durable: list[int] = []
        wrong: list[str] = []
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                for job in durable[-3:]:
                    if store.image(job)[1] != image(job):
                        wrong.append(f"image of {job}")
                seen = len(durable)
                rows = store.page(
                    states=[], include_open=True, submission=None, before=None, limit=500
                )
                if len(rows) < seen:
                    wrong.append(f"{len(rows)} rows after {seen} were durable")

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for job in range(1, 101):
            store.add(part(job, [job])).result(DONE_S)
            durable.append(job)
        over.set()
        for thread in threads:
            thread.join(DONE_S)
        assert wrong == []
