"""The history checker: silent about every true history, loud about every planted lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.checker import Rule, check, report
from experiments.history import Grant, History, Row, Seen, Told


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A service that keeps its word: retries, lost answers, deaths and all."""
    history = History()
    token, now_s = 0, 0.0
    for number in range(draw(st.integers(1, 12))):
        image, job, class_id = f"i{number}", f"j{number}", draw(st.integers(0, 5))
        history.right[image] = class_id
        attempts = draw(st.integers(1, 3))
        state = draw(st.sampled_from(["succeeded", "succeeded", "failed"]))
        history.told.append(Told(job, "queued"))
        for attempt in range(attempts):
            token, now_s = token + draw(st.integers(1, 4)), now_s + 0.01
            won = attempt == attempts - 1 and state == "succeeded"
            outcome = "succeeded" if won else draw(st.sampled_from(["lost", "expired"]))
            history.told.append(Told(job, "leased"))
            history.grants.append(Grant(job, token, "w1", outcome, now_s, now_s + 1))
        answer = class_id if state == "succeeded" else None
        history.told.append(Told(job, state, answer))
        winner = token if state == "succeeded" else None
        history.rows.append(Row(job, state, image, answer, winner))
        # The client heard of the outcome, of the acceptance alone, or of nothing.
        heard = draw(st.sampled_from(["all", "accepted", "nothing"]))
        if heard == "all":
            history.seen.append(Seen(image, job, state, answer))
        else:
            history.seen.append(Seen(image, job if heard == "accepted" else None, None))
    return replace(history, last_token=token + draw(st.integers(0, 64)))


@settings(max_examples=100, deadline=None)
@given(histories())
def test_a_true_history_has_no_violation(history: History) -> None:
    assert check(history) == []


def lose_a_job(h: History) -> History:
    return replace(h, rows=h.rows[1:], told=[])


def leave_a_job_open(h: History) -> History:
    first = replace(h.rows[0], state=None, class_id=None)
    return replace(h, rows=[first, *h.rows[1:]], told=[])


def run_an_image_twice(h: History) -> History:
    return replace(h, rows=[*h.rows, replace(h.rows[0], job="j99")])


def invent_a_job(h: History) -> History:
    return replace(h, rows=[*h.rows, Row("j99", "failed", "i99", None, None)])


def tell_of_an_unknown_job(h: History) -> History:
    return replace(h, told=[*h.told, Told("j99", "failed")])


def answer_two_images_with_one_job(h: History) -> History:
    return replace(h, seen=[*h.seen, Seen("i0", "j0", None)], rows=[*h.rows])


def say_the_wrong_class(h: History) -> History:
    changed = [replace(row, state="succeeded", class_id=7) for row in h.rows]
    return replace(h, rows=changed, told=[], seen=[replace(s, state=None) for s in h.seen])


def hold_another_image(h: History) -> History:
    return replace(h, rows=[replace(h.rows[0], image="i77"), *h.rows[1:]])


def go_back(h: History) -> History:
    return replace(h, told=[*h.told, Told("j0", "queued")])


def tell_two_outcomes(h: History) -> History:
    return replace(h, told=[*h.told, Told("j0", "cancelled")])


def tell_the_client_otherwise(h: History) -> History:
    return replace(h, seen=[Seen("i0", "j0", "cancelled"), *h.seen[1:]])


def give_a_token_twice(h: History) -> History:
    last = h.grants[-1]
    return replace(h, grants=[*h.grants, replace(last, job="j98", outcome="lost")])


def lower_a_token(h: History) -> History:
    late = Grant("j98", 0, "w1", "lost", h.grants[-1].granted_s + 1, 1e9)
    return replace(h, grants=[*h.grants, late])


def pass_the_durable_mark(h: History) -> History:
    return replace(h, last_token=0)


def let_two_leases_win(h: History) -> History:
    top = max(grant.token for grant in h.grants)
    won = [Grant("j0", top + n, "w", "succeeded", 1e6 + n, 1e9) for n in (1, 2)]
    return replace(h, grants=[*h.grants, *won], last_token=top + 2)


PLANTED: dict[Callable[[History], History], Rule] = {
    lose_a_job: Rule.LOST,
    leave_a_job_open: Rule.OPEN,
    run_an_image_twice: Rule.TWICE,
    invent_a_job: Rule.UNASKED,
    tell_of_an_unknown_job: Rule.UNASKED,
    answer_two_images_with_one_job: Rule.TWICE,
    say_the_wrong_class: Rule.WRONG,
    hold_another_image: Rule.WRONG,
    go_back: Rule.LEFT,
    tell_two_outcomes: Rule.TWICE,
    tell_the_client_otherwise: Rule.DIFFERS,
    give_a_token_twice: Rule.TOKEN,
    lower_a_token: Rule.TOKEN,
    pass_the_durable_mark: Rule.TOKEN,
    let_two_leases_win: Rule.TWICE,
}


def heard(history: History) -> History:
    """The same, and the first client heard of its acceptance."""
    first = history.seen[0]
    return replace(history, seen=[replace(first, job="j0"), *history.seen[1:]])


@pytest.mark.parametrize("lie", PLANTED, ids=lambda lie: lie.__name__)
@settings(max_examples=25, deadline=None)
@given(history=histories().map(heard))
def test_a_planted_lie_is_found(lie: Callable[[History], History], history: History) -> None:
    rules = {violation.rule for violation in check(lie(history))}
    assert PLANTED[lie] in rules


def test_hedged_leases_of_one_moment_are_no_falling_token() -> None:
    grants = [
        Grant("j1", 5, "w1", "succeeded", 10.0, 11.0),
        Grant("j2", 4, "w2", "lost", 10.001, 11.0),
    ]
    rows = [Row("j1", "succeeded", "a", 1, 5), Row("j2", "failed", "b", None, None)]
    seen = [Seen("a", "j1", None), Seen("b", "j2", None)]
    assert check(History(seen=seen, rows=rows, grants=grants, last_token=9)) == []


def test_a_late_result_of_a_core_that_died_is_no_falling_token() -> None:
    late = Grant("j2", 4, "w2", "succeeded", 12.0, 12.0, granted_before=True)
    grants = [Grant("j1", 5, "w1", "succeeded", 10.0, 11.0), late]
    rows = [Row("j1", "succeeded", "a", 1, 5), Row("j2", "succeeded", "b", 1, 4)]
    seen = [Seen("a", "j1", None), Seen("b", "j2", None)]
    history = History(seen=seen, rows=rows, grants=grants, last_token=9)
    assert check(history) == []
    again = Grant("j2", 4, "w1", "lost", 9.0, 9.5)
    twice = replace(history, grants=[*grants, again])
    assert {violation.rule for violation in check(twice)} == {Rule.TOKEN}


def test_the_report_counts_and_shows() -> None:
    assert report([]) == "history: no violation"
    seen = [Seen(f"i{n}", f"j{n}", None) for n in range(30)]
    text = report(check(History(seen=seen)))
    assert text.startswith("history: 30 VIOLATIONS\n  30 x accepted, and gone\n  j0: ")
    assert len(text.splitlines()) == 22
