"""One image against a server that misbehaves: one job, one result, and bounded patience."""

from __future__ import annotations

import socket
import threading

import pytest

from client import (
    Clock,
    Data,
    FailedImage,
    Limits,
    Lookout,
    Outcome,
    Refused,
    Retry,
    TimedOut,
    Unreachable,
)
from client.journey import Call
from client.retry import Verdict
from tests.unit.client import server as acts
from tests.unit.client.conftest import Watch
from tests.unit.client.server import Act, Handler, Server

IMAGE = Data(b"bytes of an image", "fox.jpg")


def classify_one(server: Server, watch: Watch, *plan: Act, limits: Limits | None = None) -> Outcome:
    """The outcome of one image that meets `plan`."""
    server.plan.extend(plan)
    with Lookout(server.url, clock=watch.clock, limits=limits) as lookout:
        (outcome,) = lookout.classify(IMAGE)
    return outcome


def keys(server: Server) -> set[str]:
    """Idempotency keys of all submissions."""
    return {seen.key for seen in server.seen if seen.method == "POST"}


def test_an_image_is_sent_raw_with_name_type_key_and_wait(server: Server, watch: Watch) -> None:
    outcome = classify_one(server, watch)
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/api/v1/jobs", IMAGE.body)
    assert seen.headers["content-type"] == "image/jpeg"
    assert seen.query == {"name": "fox.jpg", "wait": "30.000"}
    assert 1 <= len(seen.key) <= 255
    assert outcome.ok and outcome.result.label == "=red fox" and outcome.tries == 1
    assert outcome.result.top5[1].label == "kit fox"


@pytest.mark.parametrize(
    "fault",
    [
        acts.accept_then_drop,
        acts.drop,
        acts.garbage,
        acts.half,
        acts.problem(503, "core_unavailable", Retry_After="2"),
        acts.problem(429, "queue_full", Retry_After="2"),
        acts.problem(409, "key_in_use", Retry_After="1"),
        acts.answer(502, b"<html>bad gateway</html>"),
        acts.answer(408),
        acts.answer(507),
        acts.answer(200, b"<html>hello</html>"),
        acts.answer(200, {"submission": "s1", "jobs": []}),
        acts.answer(200, {"submission": "s1", "jobs": [{"id": 7}]}),
    ],
)
def test_a_fault_costs_a_try_and_no_second_job(server: Server, watch: Watch, fault: Act) -> None:
    outcome = classify_one(server, watch, fault, fault)
    assert outcome.ok and outcome.tries == 3
    assert len(keys(server)) == 1, "a try with another key is another job"
    assert len(server.table.ids) == 1
    assert len({seen.body for seen in server.seen}) == 1
    assert len(watch.slept) == 2


def test_two_calls_are_two_jobs(server: Server, watch: Watch) -> None:
    classify_one(server, watch)
    classify_one(server, watch)
    assert len(server.table.ids) == 2


def test_after_an_accepting_answer_it_only_asks(server: Server, watch: Watch) -> None:
    plan = (
        acts.problem(429, "queue_full", Retry_After="3"),
        acts.accept_only,
        acts.in_state("leased"),
        acts.drop,
        acts.problem(503, "core_unavailable"),
        acts.in_state("succeeded"),
    )
    outcome = classify_one(server, watch, *plan)
    assert outcome.ok and outcome.tries == 6
    assert [seen.method for seen in server.seen] == ["POST", "POST", "GET", "GET", "GET", "GET"]
    assert {s.path for s in server.seen[2:]} == {"/api/v1/jobs/j1"}
    assert server.seen[2].query == {"wait": "30.000"}
    assert server.seen[2].body == b""


def test_a_lost_answer_of_an_accepted_image_goes_on_with_its_job(
    server: Server, watch: Watch
) -> None:
    outcome = classify_one(server, watch, acts.accept_then_drop, acts.accept_only)
    assert outcome.ok and outcome.job is not None and outcome.job.id == "j1"
    assert [seen.method for seen in server.seen] == ["POST", "POST", "GET"]


def test_retry_after_is_waited_for(server: Server, watch: Watch) -> None:
    classify_one(server, watch, acts.problem(503, "starting", Retry_After="4"))
    assert len(watch.slept) == 1
    assert 4.0 <= watch.slept[0] <= 4.25


@pytest.mark.parametrize(
    ("fault", "asked_s", "longest_s"),
    [
        # Nobody there, or just starting: back within a second of its return.
        (acts.drop, 0.0, 1.0),
        (acts.problem(503, "core_unavailable", Retry_After="1"), 1.0, 2.0),
        (acts.problem(503, "starting", Retry_After="1"), 1.0, 2.0),
        # There, and busy: it is given more and more time.
        (acts.problem(503, "busy", Retry_After="1"), 1.0, 11.0),
        (acts.problem(429, "queue_full", Retry_After="1"), 1.0, 11.0),
    ],
)
def test_a_master_that_is_away_is_met_soon_and_a_busy_one_is_spared(
    server: Server, watch: Watch, fault: Act, asked_s: float, longest_s: float
) -> None:
    assert classify_one(server, watch, *[fault] * 20).ok
    later = watch.slept[8:]
    assert asked_s <= min(later) and max(later) <= longest_s
    assert max(later) > asked_s + 0.7 * (longest_s - asked_s)


def test_silence_is_a_lost_answer(server: Server, watch: Watch) -> None:
    limits = Limits(silent_s=0.1, wait_s=0.0)
    until = threading.Event()
    try:
        outcome = classify_one(server, watch, acts.held(until), limits=limits)
    finally:
        until.set()
    assert outcome.ok and outcome.tries == 2
    assert len(server.table.ids) == 1


def test_an_answer_without_end_is_not_read(server: Server, watch: Watch) -> None:
    limits = Limits(answer_bytes=5_000)
    outcome = classify_one(server, watch, acts.answer(200, b"[" * 100_000), limits=limits)
    assert outcome.ok and outcome.tries == 2


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (acts.problem(413, "image_too_large"), "image_too_large"),
        (acts.problem(422, "url_refused"), "url_refused"),
        (acts.problem(415, "unsupported_media_type"), "unsupported_media_type"),
        (acts.answer(418), "http_418"),
        (acts.in_state("failed"), "poison"),
        (acts.in_state("cancelled"), "cancelled"),
    ],
)
def test_what_is_said_of_the_image_is_not_tried_again(
    server: Server, watch: Watch, act: Act, code: str
) -> None:
    outcome = classify_one(server, watch, act)
    assert isinstance(outcome.error, FailedImage)
    assert outcome.error.code == code
    assert "fox.jpg" in str(outcome.error)
    assert outcome.tries == 1 and watch.slept == []
    with pytest.raises(FailedImage):
        _ = outcome.result


def test_a_job_that_somebody_removed_is_a_failed_image(server: Server, watch: Watch) -> None:
    outcome = classify_one(server, watch, acts.accept_only, acts.problem(404, "not_found"))
    assert isinstance(outcome.error, FailedImage) and outcome.error.code == "not_found"
    assert outcome.job is not None and outcome.job.id == "j1"


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (acts.problem(500, "internal_error"), "internal_error"),
        (acts.problem(502, "url_unreachable"), "url_unreachable"),
    ],
)
def test_what_seldom_passes_is_tried_four_times(
    server: Server, watch: Watch, act: Act, code: str
) -> None:
    outcome = classify_one(server, watch, *[act] * 9)
    assert isinstance(outcome.error, FailedImage) and outcome.error.code == code
    assert outcome.tries == 4


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (acts.problem(403, "host_not_allowed"), "host_not_allowed"),
        (acts.answer(404, b"not here"), "404"),
        (acts.answer(301, Location="https://elsewhere/"), "https://elsewhere/"),
        (acts.answer(200, b"hello"), "not as Lookout does"),
    ],
)
def test_a_server_that_takes_no_images_ends_the_call(
    server: Server, watch: Watch, act: Act, said: str
) -> None:
    server.plan.extend([act] * 20)
    with Lookout(server.url, clock=watch.clock) as lookout:
        results = lookout.classify([IMAGE] * 50, concurrency=2)
        with pytest.raises(Refused, match=said):
            outcomes = [next(results)]
            outcomes.extend(results)
    assert len(server.seen) <= 2 * 4, "images that were not begun must not be sent"
    assert isinstance(outcomes[0].error, Refused)


def unused_port() -> int:
    """A port on which nobody listens: it is bound, and refuses."""
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    _kept.append(probe)
    port: int = probe.getsockname()[1]
    return port


_kept: list[socket.socket] = []


def test_a_wrong_address_shows_within_ten_seconds(watch: Watch) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    retries: list[Retry] = []
    with Lookout(url, clock=watch.clock) as lookout:
        results = lookout.classify(IMAGE, on_retry=retries.append)
        (outcome, error) = next(results), None
        with pytest.raises(Unreachable) as raised:
            next(results)
        error = raised.value
    assert outcome.error is error
    assert url in str(error) and "--server" in str(error)
    assert 0 < sum(watch.slept) <= 10.0
    assert len(retries) == len(watch.slept) == outcome.tries - 1
    assert all(url in retry.reason for retry in retries)


def test_a_server_that_was_heard_gets_more_patience(server: Server, watch: Watch) -> None:
    limits = Limits(patience_s=60.0)
    plan = [acts.accept_only, *[acts.drop] * 400]
    outcome = classify_one_failing(server, watch, plan, limits)
    assert isinstance(outcome.error, Unreachable)
    assert 40.0 < sum(watch.slept) <= 60.0
    assert outcome.job is not None and outcome.job.id == "j1"


def test_a_full_queue_is_waited_for_longer_than_a_dead_server(server: Server, watch: Watch) -> None:
    plan = [acts.problem(429, "queue_full", Retry_After="100")] * 20
    outcome = classify_one(server, watch, *plan)
    assert outcome.ok and outcome.tries == 21
    assert sum(watch.slept) > 2000


def test_a_queue_that_stays_full_is_a_refusal(server: Server, watch: Watch) -> None:
    plan = [acts.problem(429, "queue_full", Retry_After="100")] * 60
    outcome = classify_one_failing(server, watch, plan, Limits())
    assert isinstance(outcome.error, Refused) and outcome.error.code == "queue_full"
    assert 3000 < sum(watch.slept) <= 3600


def test_a_server_that_asks_for_more_than_our_patience_is_not_waited_for(
    server: Server, watch: Watch
) -> None:
    plan = [acts.problem(503, "storage_failed", Retry_After="900")]
    outcome = classify_one_failing(server, watch, plan, Limits())
    assert isinstance(outcome.error, Refused) and outcome.error.code == "storage_failed"
    assert watch.slept == []


def classify_one_failing(server: Server, watch: Watch, plan: list[Act], limits: Limits) -> Outcome:
    """The outcome of one image that ends its call."""
    server.plan.extend(plan)
    with Lookout(server.url, clock=watch.clock, limits=limits) as lookout:
        results = lookout.classify(IMAGE)
        outcome = next(results)
        with pytest.raises((Unreachable, Refused, TimedOut)):
            next(results)
    return outcome


# --- deadlines -------------------------------------------------------------------------------


def test_the_deadline_goes_with_the_image_and_stays_the_same_over_tries(
    server: Server, watch: Watch
) -> None:
    server.plan.extend([acts.problem(503, "starting", Retry_After="5"), acts.drop])
    with Lookout(server.url, clock=watch.clock) as lookout:
        (outcome,) = lookout.classify(IMAGE, deadline_s=20)
    assert outcome.ok
    assert {seen.query["timeout"] for seen in server.seen} == {"20.000"}
    waits = [float(seen.query["wait"]) for seen in server.seen]
    assert waits[0] == 19.5 and waits[1] < 15


def test_a_pause_beyond_the_deadline_is_not_begun(server: Server, watch: Watch) -> None:
    server.plan.append(acts.problem(429, "queue_full", Retry_After="60"))
    with Lookout(server.url, clock=watch.clock) as lookout:
        results = lookout.classify(IMAGE, deadline_s=20)
        outcome = next(results)
        with pytest.raises(TimedOut, match="20 s were allowed"):
            next(results)
    assert isinstance(outcome.error, TimedOut) and watch.slept == []


def test_a_job_that_missed_its_deadline_on_the_server_is_timed_out(
    server: Server, watch: Watch
) -> None:
    job = {"id": "j1", "submission": "s1", "name": "x", "state": "failed"}
    job_error = {"code": "deadline_exceeded", "message": "its deadline passed"}
    server.plan.append(acts.answer(200, {"submission": "s1", "jobs": [job | {"error": job_error}]}))
    with Lookout(server.url, clock=watch.clock) as lookout:
        results = lookout.classify(IMAGE, deadline_s=20)
        assert isinstance(next(results).error, TimedOut)


def test_a_held_answer_ends_at_the_deadline(server: Server) -> None:
    until = threading.Event()
    server.plan.append(acts.held(until))
    try:
        with Lookout(server.url) as lookout:
            results = lookout.classify([IMAGE] * 5, deadline_s=0.2, concurrency=1)
            outcomes = [next(results)]
            with pytest.raises(TimedOut):
                next(results)
    finally:
        until.set()
    assert isinstance(outcomes[0].error, TimedOut)
    assert len(server.seen) == 1


def test_just_before_the_deadline_it_asks_a_few_times_and_not_without_pause(
    server: Server, watch: Watch
) -> None:
    """The server's waits are over then, and it answers at once: it has not ended."""
    job = {"id": "j1", "submission": "s1", "name": "x", "state": "queued"}
    submitted = acts.answer(202, {"submission": "s1", "jobs": [job]})

    def late(handler: Handler) -> None:
        watch.now_s += 19.6
        submitted(handler)

    server.plan.extend([late, *[acts.answer(200, job)] * 1000])
    with Lookout(server.url, clock=watch.clock) as lookout:
        results = lookout.classify(IMAGE, deadline_s=20)
        outcome = next(results)
        with pytest.raises(TimedOut):
            next(results)
    assert isinstance(outcome.error, TimedOut)
    assert 1 < len(server.seen) <= 5
    assert {seen.query["wait"] for seen in server.seen[1:]} == {"0.000"}


def test_each_kind_of_silence_has_its_own_patience() -> None:
    call = Call("http://x", Limits(), Clock(), None, 0.0, print, print)
    assert call.patience(Verdict.AGAIN)[1] == 10.0
    call.heard(Verdict.QUEUE)
    assert call.patience(Verdict.AGAIN)[1] == 120.0
    assert call.patience(Verdict.QUEUE)[1] == 3600.0
    assert call.moved_at < call.well_at


def test_a_call_that_nobody_read_from_has_lost_no_patience(server: Server, watch: Watch) -> None:
    ended = threading.Event()
    with Lookout(server.url, clock=watch.clock, limits=Limits(window=1)) as lookout:
        results = lookout.classify([IMAGE] * 2, concurrency=1, on_result=lambda _: ended.set())
        assert ended.wait(10)
        watch.now_s += 10_000
        server.plan.extend([acts.drop] * 3)
        assert [outcome.tries for outcome in results] == [1, 4]
