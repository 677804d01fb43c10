"""Decisions about streams: which carries what, what is lost with one, how many there should be."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from wire import streams
from wire.streams import Backlog, Load, LossMeter, StreamPlan, Unconfirmed, choose


def test_the_least_loaded_lively_stream_is_chosen() -> None:
    assert choose([Load(0.1, 500), Load(0.2, 100), Load(0.0, 200)]) == 1
    assert choose([Load(0.0, 100), Load(0.0, 100)]) == 0, "the first of equals"
    assert choose([Load(streams.STALL_S, 0), Load(0.1, 10**6)]) == 1, "a silent one has no room"
    assert choose([Load(9.0, 5), Load(8.0, 4)]) == 1, "all silent: the least loaded"


def test_a_backlog_is_counted_between_two_questions_to_the_kernel() -> None:
    asked: list[int] = []

    def ask() -> int:
        asked.append(7)
        return 700

    backlog = Backlog()
    assert backlog.read(ask, 10.0) == 700, "the first is asked for"
    backlog.sent(100_000)
    assert backlog.read(ask, 10.0 + streams.BACKLOG_AGE_S / 2) == 100_700
    assert len(asked) == 1
    assert backlog.read(ask, 10.0 + streams.BACKLOG_AGE_S) == 700, "the kernel knows better"
    assert len(asked) == 2


def test_what_came_ahead_of_an_answered_mark_is_confirmed() -> None:
    log: Unconfirmed[str] = Unconfirmed()
    log.sent("a")
    log.mark(1)
    log.sent("b")
    log.mark(2)
    log.sent("c")
    log.confirm(1)
    assert len(log) == 2
    log.confirm(1)
    log.confirm(0)
    assert len(log) == 2, "an older answer says nothing new"
    assert log.take() == ["b", "c"]
    assert log.take() == []
    log.confirm(2)


def test_more_than_the_bound_is_refused() -> None:
    log: Unconfirmed[int] = Unconfirmed()
    assert all(log.sent(n) for n in range(streams.UNCONFIRMED_MAX))
    assert not log.sent(-1)


@given(st.lists(st.sampled_from(["send", "mark", "ack"]), max_size=60), st.integers(0, 60))
def test_nothing_is_lost_with_a_stream_whatever_arrived(story: list[str], cut: int) -> None:
    """The peer has the first messages of the stream; the log holds at least all the others."""
    log: Unconfirmed[int] = Unconfirmed()
    wire: list[tuple[str, int]] = []
    sent = marks = answered = 0
    for step in story:
        if step == "send":
            log.sent(sent)
            wire.append(("item", sent))
            sent += 1
        elif step == "mark":
            log.mark(marks)
            wire.append(("mark", marks))
            marks += 1
        elif answered < marks:
            log.confirm(answered)
            answered += 1
    # All that was answered had arrived; what follows was cut somewhere.
    arrived = max([at + 1 for at, w in enumerate(wire) if w == ("mark", answered - 1)], default=0)
    arrived = max(arrived, min(cut, len(wire)))
    have = [number for kind, number in wire[:arrived] if kind == "item"]
    left = log.take()
    assert sorted({*have, *left}) == list(range(sent))
    assert left == sorted(left)


def test_the_share_is_of_lately_and_needs_enough_segments() -> None:
    meter = LossMeter(0.0)
    meter.add(10, 5, 0.5)
    assert meter.share is None
    meter.add(990, 95, 1.0)
    assert meter.share is not None
    assert 0.09 < meter.share < 0.11
    for second in range(2, 120):
        meter.add(100, 0, float(second))
    assert meter.share < 0.001, "what was lost long ago is forgotten"


def test_a_link_that_gets_worse_shows_although_it_carries_little() -> None:
    meter, plan = LossMeter(0.0), StreamPlan()
    for beat in range(1, 41):
        meter.add(4000, 400, beat / 2)
    assert plan.update(meter.share, 20.0) == 1
    for beat in range(41, 51):
        meter.add(150, 30, beat / 2)
    assert plan.update(meter.share, 25.0) == streams.STREAMS_AUTO_MAX


@given(st.floats(0, 1))
def test_a_constant_share_leads_to_one_number_and_stays(share: float) -> None:
    plan = StreamPlan()
    first = plan.update(share, 0.0)
    assert [plan.update(share, 10.0 * n) for n in range(1, 20)] == [first] * 19
    assert 1 <= first <= streams.STREAMS_AUTO_MAX


def test_more_at_once_fewer_after_a_calm_time() -> None:
    plan = StreamPlan()
    assert plan.update(None, 0.0) == 1
    assert plan.update(0.0, 1.0) == 1
    assert plan.update(0.10, 2.0) == 1, "one stream with BBR carries as much as several"
    assert plan.update(0.3, 3.0) == 16
    assert plan.update(0.0, 4.0) == 16
    assert plan.update(0.0, 4.0 + streams.CALM_S - 1) == 16
    assert plan.update(0.3, 4.5 + streams.CALM_S) == 16, "the loss is back: the calm begins anew"
    assert plan.update(0.0, 5.0 + streams.CALM_S) == 16
    assert plan.update(0.0, 5.0 + 2 * streams.CALM_S) == 1


def test_a_share_that_wavers_at_an_edge_does_not_open_and_close() -> None:
    rng, plan, edge = random.Random(1), StreamPlan(), streams.STEPS[0].share
    plan.update(edge, 0.0)
    seen = {plan.update(edge * rng.uniform(0.6, 1.2), float(second)) for second in range(300)}
    assert seen == {streams.STEPS[0].streams}
