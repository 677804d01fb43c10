"""Which streams a worker opens, replaces and ends; literal times."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from wire.streams import STALL_S
from worker.streaming import DIALS_MAX, RACING_DIALS, Dial, Keeper, Shut, StreamView

LIVELY = 0.0
SILENT = STALL_S + 1


def keeper() -> Keeper:
    return Keeper(random.Random(1))


def views(*silences: float) -> list[StreamView]:
    return [StreamView(number, silence_s) for number, silence_s in enumerate(silences)]


def test_one_lively_stream_on_a_good_link_is_left_alone() -> None:
    assert keeper().decide(views(LIVELY), 1, 0.0) == []


def test_missing_ones_are_dialled_a_few_at_a_time() -> None:
    one = keeper()
    assert one.decide(views(LIVELY), 16, 0.0) == [Dial()] * DIALS_MAX
    assert one.decide(views(LIVELY), 16, 0.1) == []
    one.dialled(Dial(), True, 0.2)
    assert one.decide(views(LIVELY, LIVELY), 16, 0.2) == [Dial()]


def test_after_a_failure_the_next_dial_waits() -> None:
    one = keeper()
    assert one.decide(views(LIVELY), 2, 0.0) == [Dial()]
    one.dialled(Dial(), False, 5.0)
    assert one.decide(views(LIVELY), 2, 5.0) == []
    assert one.decide(views(LIVELY), 2, 11.0) == [Dial()]


def test_a_silent_stream_is_replaced_once() -> None:
    one = keeper()
    assert one.decide(views(LIVELY, SILENT), 2, 0.0) == [Dial(replaces=1)]
    assert one.decide(views(LIVELY, SILENT), 2, 0.5) == []
    one.dialled(Dial(replaces=1), True, 1.0)
    assert one.decide([StreamView(0, LIVELY), StreamView(2, LIVELY)], 2, 1.0) == []


def test_for_the_only_one_several_race_and_one_stays() -> None:
    one = keeper()
    race = [Dial(replaces=0), Dial(), Dial()]
    assert len(race) == RACING_DIALS
    assert one.decide(views(SILENT), 1, 0.0) == race
    assert one.decide(views(SILENT), 1, 0.5) == []
    one.dialled(Dial(), True, 1.0)
    assert one.decide(views(SILENT, LIVELY), 1, 1.0) == []
    one.dialled(Dial(), True, 2.0)
    one.dialled(Dial(replaces=0), True, 2.0)
    late = [StreamView(number, LIVELY) for number in (1, 2, 3)]
    assert one.decide(late, 1, 2.0) == [Shut(2), Shut(3)]


def test_the_longest_silent_goes_first() -> None:
    found = keeper().decide(views(LIVELY, 3.0, 9.0, 4.0), 4, 0.0)
    assert found == [Dial(replaces=2), Dial(replaces=3), Dial(replaces=1)]


def test_more_than_wanted_are_ended_the_newest_first_and_silent_ones_do_not_count() -> None:
    assert keeper().decide(views(*[LIVELY] * 4), 2, 0.0) == [Shut(2), Shut(3)]
    assert keeper().decide(views(LIVELY, SILENT), 1, 0.0) == [Dial(replaces=1)]


@given(st.lists(st.floats(0, 20), min_size=1, max_size=20), st.integers(1, 16), st.integers(0, 99))
def test_it_comes_to_rest_with_as_many_lively_streams_as_wanted(
    silences: list[float], wanted: int, seed: int
) -> None:
    rng, one, now = random.Random(seed), keeper(), 0.0
    open_ = {view.number: view.silence_s for view in views(*silences)}
    dials: list[Dial] = []
    for _ in range(400):
        now += 0.5
        for step in one.decide([StreamView(n, s) for n, s in open_.items()], wanted, now):
            if isinstance(step, Shut):
                del open_[step.number]
            else:
                dials.append(step)
        assert len(dials) == one.dialling <= DIALS_MAX
        if dials and rng.random() < 0.7:
            dial = dials.pop(rng.randrange(len(dials)))
            succeeded = rng.random() < 0.6
            one.dialled(dial, succeeded, now)
            if succeeded:
                open_[max(open_, default=0) + 1] = 0.0
                if dial.replaces is not None:
                    open_.pop(dial.replaces, None)
    assert not dials
    assert len(open_) == wanted
    assert max(open_.values()) < STALL_S
