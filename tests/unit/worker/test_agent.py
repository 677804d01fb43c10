"""The join/drain agent, driven event by event with literal times."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import messages as m
from wire.card import Card, Preprocessing
from wire.errors import LocalFault
from worker import events as e
from worker.agent import Agent, AgentConfig, Phase
from worker.outbox import CAPACITY_RESULTS

CARD = Card(
    id="squeezenet",
    architecture="squeezenet1_1",
    classes=["cat", "dog"],
    preprocessing=Preprocessing(resize_px=256, crop_px=224),
    sha256="a" * 64,
    size_bytes=10,
)
OTHER = Card(
    id="googlenet",
    architecture="googlenet",
    classes=["cat", "dog"],
    preprocessing=Preprocessing(resize_px=256, crop_px=224),
    sha256="b" * 64,
    size_bytes=10,
)
Kind = TypeVar("Kind")


def agent(slots: int = 8, executing_max: int = 4, seed: int = 1) -> Agent:
    return Agent(AgentConfig(slots=slots, executing_max=executing_max), random.Random(seed))


def joined(**config: int) -> Agent:
    one = agent(**config)
    one.handle(e.Welcomed("w1", lease_ttl_s=10.0), 0.0)
    return one


def ready(**config: int) -> Agent:
    one = joined(**config)
    one.handle(m.Model(card=CARD), 0.0)
    one.handle(e.ModelLoaded(CARD, "torch", 12.0), 1.0)
    return one


def assign(
    job: int, token: int = 1, *, alone: bool = False, timeout_s: float | None = None
) -> m.Assign:
    return m.Assign(
        job=f"j{job}",
        token=token,
        attempt=1,
        name="cat.jpg",
        image=b"x",
        alone=alone,
        timeout_s=timeout_s,
    )


def finished(job: int, token: int = 1, fault: m.Fault | None = None) -> e.Finished:
    return e.Finished(m.Result(job=f"j{job}", token=token, model=CARD.id, fault=fault))


def accepted(job: int, token: int = 1) -> m.Accepted:
    return m.Accepted(job=f"j{job}", token=token)


def begun(effects: Iterable[e.Effect]) -> list[str]:
    return [
        lease.assign.job
        for effect in effects
        if isinstance(effect, e.Begin)
        for lease in effect.leases
    ]


def sent(effects: Iterable[e.Effect], kind: type[Kind]) -> list[Kind]:
    messages = [effect.message for effect in effects if isinstance(effect, e.Send)]
    return [message for message in messages if isinstance(message, kind)]


def only(effects: list[e.Effect], kind: type[Kind]) -> Kind:
    assert len(effects) == 1, effects
    assert isinstance(effects[0], kind), effects
    return effects[0]


# --- joining -----------------------------------------------------------------------------


def test_connects_at_once_and_says_nothing_until_a_model_is_offered() -> None:
    one = agent()
    assert one.start() == [e.Connect(after_s=0.0)]
    assert one.handle(e.Welcomed("w1", 10.0), 0.0) == []
    assert not one.ready


def test_is_ready_only_once_the_model_is_warm() -> None:
    one = joined()
    assert one.handle(m.Model(card=CARD), 0.0) == [e.Load(CARD)]
    effects = one.handle(e.ModelLoaded(CARD, "torch", 12.0), 1.0)
    assert effects[0] == e.Serve(CARD)
    assert sent(effects, m.Ready) == [
        m.Ready(model="squeezenet", engine="torch", slots=8, warmup_ms=12.0)
    ]


def test_says_why_a_model_cannot_be_served_and_stays() -> None:
    one = joined()
    one.handle(m.Model(card=CARD), 0.0)
    effects = one.handle(e.ModelFailed(CARD, "disk_full", "no room"), 1.0)
    assert sent(effects, m.ModelFault) == [
        m.ModelFault(model="squeezenet", code="disk_full", reason="no room")
    ]
    assert one.phase is Phase.JOINED


def test_serves_the_old_model_until_the_new_one_is_warm() -> None:
    one = ready()
    assert one.handle(m.Model(card=OTHER), 2.0) == [e.Load(OTHER)]
    assert begun(one.handle(assign(1), 2.5)) == ["j1"]
    effects = one.handle(e.ModelLoaded(OTHER, "torch", 9.0), 3.0)
    assert effects[0] == e.Serve(OTHER)
    assert sent(effects, m.Ready)[0].model == "googlenet"


def test_a_model_that_is_no_longer_wanted_is_not_served() -> None:
    one = joined()
    one.handle(m.Model(card=CARD), 0.0)
    one.handle(m.Model(card=OTHER), 0.5)
    assert one.handle(e.ModelLoaded(CARD, "torch", 1.0), 1.0) == []


@pytest.mark.parametrize("failures", [1, 5, 50])
def test_tries_again_for_ever_and_never_waits_longer_than_the_cap(failures: int) -> None:
    one = agent()
    for _ in range(failures):
        effects = one.handle(e.JoinFailed("unreachable", "refused"), 0.0)
        assert 0.0 <= only(effects, e.Connect).after_s <= 10.0


@pytest.mark.parametrize(
    # A master that is just away is back in seconds; one that answers "no" is spared.
    ("code", "cap_s"),
    [("unreachable", 2.0), ("handshake_timeout", 10.0)],
)
def test_first_retry_comes_within_200_ms_and_later_ones_spread_out(code: str, cap_s: float) -> None:
    delays = []
    for seed in range(200):
        one = agent(seed=seed)
        waits = [only(one.handle(e.JoinFailed(code, ""), 0.0), e.Connect).after_s for _ in range(8)]
        assert waits[0] <= 0.2
        delays.append(waits[-1])
    assert 0.9 * cap_s < max(delays) <= cap_s
    assert min(delays) < 0.1 * cap_s


def test_a_hopeless_refusal_ends_the_first_join_with_code_2() -> None:
    effects = agent().handle(e.JoinFailed("bad_token", "wrong token", hopeless=True), 0.0)
    assert effects == [e.Exit(2, "wrong token")]


def test_a_hopeless_refusal_after_a_join_is_retried() -> None:
    one = joined()
    one.handle(e.ConnectionLost("reset"), 1.0)
    effects = one.handle(e.JoinFailed("bad_token", "wrong token", hopeless=True), 1.1)
    only(effects, e.Connect)


def test_backoff_starts_anew_only_after_a_connection_that_lasted() -> None:
    one = agent()
    for _ in range(10):
        one.handle(e.JoinFailed("unreachable", ""), 0.0)
    one.handle(e.Welcomed("w1", 10.0), 1.0)
    short = [only(one.handle(e.ConnectionLost("reset"), 1.5), e.Connect).after_s]
    for _ in range(20):
        one.handle(e.Welcomed("w1", 10.0), 2.0)
        short.append(only(one.handle(e.ConnectionLost("reset"), 2.1), e.Connect).after_s)
    assert max(short) > 0.2
    one.handle(e.Welcomed("w1", 10.0), 3.0)
    assert only(one.handle(e.ConnectionLost("reset"), 8.0), e.Connect).after_s <= 0.2


# --- work --------------------------------------------------------------------------------


def test_begins_up_to_its_bound_and_the_rest_as_room_appears() -> None:
    one = ready(executing_max=2)
    assert begun(one.handle(assign(1), 2.0)) == ["j1"]
    assert begun(one.handle(assign(2), 2.0)) == ["j2"]
    assert one.handle(assign(3), 2.0) == []
    assert (one.held, one.executing) == (3, 2)
    effects = one.handle(finished(1), 3.0)
    assert [r.job for r in sent(effects, m.Result)] == ["j1"]
    assert begun(effects) == ["j3"]


def test_holds_leases_that_come_before_the_model_is_warm() -> None:
    one = joined()
    one.handle(m.Model(card=CARD), 0.0)
    assert one.handle(assign(1), 0.5) == []
    assert begun(one.handle(e.ModelLoaded(CARD, "torch", 1.0), 1.0)) == ["j1"]


def test_gives_back_what_exceeds_its_slots() -> None:
    one = ready(slots=2, executing_max=1)
    one.handle(assign(1), 2.0)
    one.handle(assign(2), 2.0)
    effects = one.handle(assign(3, token=7), 2.0)
    assert sent(effects, m.Released)[0].leases == [m.LeaseRef(job="j3", token=7)]
    assert one.held == 2


def test_a_lone_job_executes_with_nothing_beside_it() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    assert begun(one.handle(assign(2, alone=True), 2.0)) == []
    assert begun(one.handle(assign(3), 2.0)) == []
    assert begun(one.handle(finished(1), 3.0)) == ["j2"]
    assert begun(one.handle(finished(2), 4.0)) == ["j3"]


def test_cancel_drops_only_what_has_not_begun() -> None:
    one = ready(executing_max=1)
    one.handle(assign(1), 2.0)
    one.handle(assign(2), 2.0)
    one.handle(m.Cancel(job="j1", token=1, reason="user"), 2.5)
    one.handle(m.Cancel(job="j2", token=1, reason="user"), 2.5)
    assert (one.held, one.executing) == (1, 1)
    assert begun(one.handle(finished(1), 3.0)) == []


def test_a_cancel_of_an_older_lease_leaves_the_newer_one() -> None:
    one = ready(executing_max=1)
    one.handle(assign(1), 2.0)
    one.handle(assign(2, token=5), 2.0)
    one.handle(m.Cancel(job="j2", token=4, reason="hedged"), 2.5)
    assert one.held == 2


def test_cancelling_a_lone_job_lets_those_behind_it_begin() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    one.handle(assign(2, alone=True), 2.0)
    one.handle(assign(3), 2.0)
    assert begun(one.handle(m.Cancel(job="j2", token=1, reason="user"), 2.5)) == ["j3"]


def test_a_lease_whose_deadline_passed_in_the_queue_is_not_executed() -> None:
    one = ready(executing_max=1)
    one.handle(assign(1), 2.0)
    one.handle(assign(2, timeout_s=1.0), 2.0)
    effects = one.handle(finished(1), 3.0)
    result = sent(effects, m.Result)[1]
    assert result.job == "j2"
    assert result.fault is not None
    assert result.fault.code == "deadline_passed"
    assert begun(effects) == []


def test_begins_nothing_that_the_outbox_might_not_hold() -> None:
    one = ready(slots=4096, executing_max=CAPACITY_RESULTS)
    for job in range(CAPACITY_RESULTS):
        one.handle(assign(job), 2.0)
    for job in range(CAPACITY_RESULTS):
        one.handle(finished(job), 3.0)
    assert one.handle(assign(9999), 4.0) == []
    assert one.unanswered == CAPACITY_RESULTS
    assert begun(one.handle(accepted(0), 5.0)) == ["j9999"]


def test_leases_not_announced_are_not_executed() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    one.handle(e.NotBegun(("j1",)), 2.1)
    one.handle(e.ConnectionLost("reset"), 2.2)
    assert one.held == 0


def test_after_a_long_stop_the_unstarted_leases_go_back() -> None:
    one = ready(executing_max=1)
    one.handle(assign(1), 2.0)
    one.handle(assign(2), 2.0)
    assert one.handle(e.Paused(gap_s=3.0), 5.0) == []
    effects = one.handle(e.Paused(gap_s=11.0), 16.0)
    assert sent(effects, m.Released)[0].leases == [m.LeaseRef(job="j2", token=1)]
    assert one.executing == 1


# --- results across connections ----------------------------------------------------------


def test_a_result_is_kept_until_answered() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    one.handle(finished(1), 3.0)
    one.handle(accepted(1, token=99), 3.1)
    assert one.unanswered == 1
    one.handle(accepted(1), 3.2)
    assert one.unanswered == 0


def test_a_stale_answer_forgets_the_result_too() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    one.handle(finished(1), 3.0)
    one.handle(m.Stale(job="j1", token=1, reason="late"), 3.2)
    assert one.unanswered == 0


def test_unanswered_results_go_out_after_welcome_and_before_ready() -> None:
    one = ready(executing_max=2)
    for job in (1, 2, 3, 4):
        one.handle(assign(job), 2.0)
    one.handle(finished(1), 3.0)
    one.handle(e.ConnectionLost("reset"), 4.0)
    assert (one.held, one.executing) == (2, 2), "the unstarted lease is the master's again"
    assert one.handle(finished(2), 5.0) == [], "no connection to send it on"
    resent = sent(one.handle(e.Welcomed("w1", 10.0), 6.0), m.Result)
    assert [r.job for r in resent] == ["j1", "j2"]
    effects = one.handle(m.Model(card=CARD), 6.1)
    assert len(sent(effects, m.Ready)) == 1, "the model is still in memory: no Load"


def test_a_new_lease_on_a_finished_job_is_answered_from_the_outbox() -> None:
    one = ready()
    one.handle(assign(1, token=1), 2.0)
    one.handle(finished(1, token=1), 3.0)
    effects = one.handle(assign(1, token=2), 4.0)
    assert [(r.job, r.token) for r in sent(effects, m.Result)] == [("j1", 2)]
    assert begun(effects) == []
    one.handle(m.Stale(job="j1", token=1, reason="older"), 4.1)
    assert one.unanswered == 1, "the answer was to the older token"
    one.handle(accepted(1, token=2), 4.2)
    assert one.unanswered == 0


def test_a_new_lease_on_a_job_that_failed_here_for_now_is_tried_again() -> None:
    one = ready()
    one.handle(assign(1, token=1), 2.0)
    fault = m.Fault(code="engine_error", message="", retryable=True)
    one.handle(finished(1, token=1, fault=fault), 3.0)
    assert begun(one.handle(assign(1, token=2), 4.0)) == ["j1"]


def test_an_answer_of_another_model_is_computed_again() -> None:
    one = ready()
    one.handle(assign(1, token=1), 2.0)
    one.handle(finished(1, token=1), 3.0)
    one.handle(m.Model(card=OTHER), 3.5)
    one.handle(e.ModelLoaded(OTHER, "torch", 1.0), 3.9)
    assert begun(one.handle(assign(1, token=2), 4.0)) == ["j1"]


def test_a_new_lease_on_an_executing_job_is_adopted() -> None:
    one = ready()
    one.handle(assign(1, token=1), 2.0)
    one.handle(e.ConnectionLost("reset"), 2.5)
    one.handle(e.Welcomed("w1", 10.0), 3.0)
    one.handle(m.Model(card=CARD), 3.0)
    effects = one.handle(assign(1, token=2), 3.1)
    assert begun(effects) == []
    assert sent(effects, m.Started)[0].leases == [m.LeaseRef(job="j1", token=2)]
    result = sent(one.handle(finished(1, token=1), 4.0), m.Result)[0]
    assert result.token == 2


# --- leaving -----------------------------------------------------------------------------


def test_drain_gives_back_finishes_waits_for_the_answer_and_says_goodbye() -> None:
    one = ready(executing_max=1)
    one.handle(assign(1), 2.0)
    one.handle(assign(2), 2.0)
    effects = one.handle(e.DrainAsked("SIGTERM"), 3.0)
    assert [type(x.message) for x in effects if isinstance(x, e.Send)] == [m.Draining, m.Released]
    assert sent(effects, m.Released)[0].leases == [m.LeaseRef(job="j2", token=1)]
    late = one.handle(assign(3, token=9), 3.1)
    assert sent(late, m.Released)[0].leases == [m.LeaseRef(job="j3", token=9)]
    assert len(sent(one.handle(finished(1), 4.0), m.Result)) == 1
    effects = one.handle(accepted(1), 4.1)
    assert sent(effects, m.Goodbye) == [m.Goodbye(reason="SIGTERM")]
    assert effects[-1] == e.Exit(0, "SIGTERM")
    assert one.handle(assign(4), 5.0) == [], "nothing matters after the exit"


def test_an_idle_worker_leaves_at_once() -> None:
    effects = ready().handle(m.Drain(reason="scale down"), 3.0)
    assert effects[-1] == e.Exit(0, "scale down")
    assert len(sent(effects, m.Goodbye)) == 1


def test_drain_has_a_deadline() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    assert one.next_deadline() is None
    one.handle(e.DrainAsked("SIGTERM"), 3.0)
    assert one.next_deadline() == 33.0
    assert one.handle(e.Tick(), 32.9) == []
    end = only(one.handle(e.Tick(), 33.0), e.Exit)
    assert end.code == 1
    assert "1 executing" in end.reason


def test_drain_without_a_connection_delivers_results_first() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    one.handle(e.ConnectionLost("reset"), 2.5)
    assert one.handle(e.DrainAsked("SIGTERM"), 3.0) == []
    one.handle(finished(1), 4.0)
    effects = one.handle(e.Welcomed("w1", 10.0), 5.0)
    assert len(sent(effects, m.Draining)) == 1
    assert len(sent(effects, m.Result)) == 1
    assert one.handle(m.Model(card=CARD), 5.1) == []
    assert one.handle(accepted(1), 5.2)[-1] == e.Exit(0, "SIGTERM")


def test_drain_before_the_first_join_exits_at_once() -> None:
    assert agent().handle(e.DrainAsked("SIGINT"), 1.0) == [e.Exit(0, "SIGINT")]


def test_losing_the_connection_while_idle_and_draining_is_the_end() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    one.handle(e.DrainAsked("SIGTERM"), 3.0)
    one.handle(finished(1), 3.5)
    one.handle(e.ConnectionLost("reset"), 3.6)
    assert one.phase is Phase.ORPHANED
    one.handle(e.Welcomed("w1", 10.0), 3.9)
    assert one.handle(accepted(1), 4.0)[-1] == e.Exit(0, "SIGTERM")


def test_an_unwell_process_drains_and_asks_to_be_replaced() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    effects = one.handle(e.Unwell("a decoder is stuck"), 3.0)
    assert len(sent(effects, m.Draining)) == 1
    one.handle(finished(1), 3.5)
    assert one.handle(accepted(1), 3.6)[-1] == e.Exit(0, "a decoder is stuck", restart=True)


def test_whoever_ends_an_unwell_process_gets_the_end() -> None:
    one = ready()
    one.handle(assign(1), 2.0)
    one.handle(e.Unwell("a decoder is stuck"), 3.0)
    one.handle(e.DrainAsked("SIGTERM"), 3.1)
    one.handle(finished(1), 3.5)
    assert one.handle(accepted(1), 3.6)[-1] == e.Exit(0, "SIGTERM", restart=False)


def test_an_event_out_of_its_phase_is_our_bug() -> None:
    with pytest.raises(LocalFault, match="Welcomed can't come while joined"):
        joined().handle(e.Welcomed("w1", 10.0), 1.0)
    with pytest.raises(LocalFault, match="never begun"):
        ready().handle(finished(1), 1.0)


# --- whatever happens --------------------------------------------------------------------


class _World:
    """Plays master, network and pipeline at random, and checks what must always hold."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.agent = agent(slots=6, executing_max=3)
        self.now = 0.0
        self.linked = False
        self.offered = False
        self.executing: dict[str, tuple[int, bool]] = {}
        self.token = 0
        self.computed: set[str] = set()
        self.outcome: set[str] = set()
        self.unanswered: dict[str, int] = {}

    def step(self) -> None:
        self.now += 0.1
        choices = ["lose", "assign", "offer"] if self.linked else ["welcome", "fail"]
        choices += ["finish"] * 2 if self.executing else []
        choices += ["answer"] * 2 if self.linked and self.unanswered else []
        getattr(self, self.data.draw(st.sampled_from(choices)))()
        assert self.agent.held <= 6
        assert self.agent.executing == len(self.executing) <= 3
        assert self.agent.unanswered == len(self.unanswered)

    def welcome(self) -> None:
        self.linked = True
        effects = self.take(e.Welcomed("w", 10.0))
        assert {r.job for r in sent(effects, m.Result)} == set(self.unanswered)
        assert not sent(effects, m.Ready)

    def fail(self) -> None:
        only(self.take(e.JoinFailed("unreachable", "")), e.Connect)

    def lose(self) -> None:
        self.linked = False
        only(self.take(e.ConnectionLost("cut")), e.Connect)

    def offer(self) -> None:
        if e.Load(CARD) in self.take(m.Model(card=CARD)):
            self.take(e.ModelLoaded(CARD, "torch", 1.0))

    def assign(self) -> None:
        self.token += 1
        job = self.data.draw(st.integers(1, 5))
        alone = self.data.draw(st.booleans())
        self.take(assign(job, self.token, alone=alone))

    def finish(self) -> None:
        job = self.data.draw(st.sampled_from(sorted(self.executing)))
        token, _ = self.executing.pop(job)
        self.computed.add(job)
        self.unanswered[job] = token
        self.take(finished(int(job[1:]), token))

    def answer(self) -> None:
        job = self.data.draw(st.sampled_from(sorted(self.unanswered)))
        self.take(m.Accepted(job=job, token=self.unanswered.pop(job)))
        self.computed.discard(job)

    def drain(self) -> e.Exit:
        """Ask for the end, then let master and network do their part until it comes."""
        effects = self.take(e.DrainAsked("SIGTERM"))
        for _ in range(50):
            if self.agent.phase is Phase.GONE:
                break
            if not self.linked:
                self.linked = True
                effects = self.take(e.Welcomed("w", 10.0))
            elif self.executing:
                effects = self.end_one()
            else:
                job = next(iter(self.unanswered))
                effects = self.take(m.Accepted(job=job, token=self.unanswered.pop(job)))
        assert isinstance(effects[-1], e.Exit)
        return effects[-1]

    def end_one(self) -> list[e.Effect]:
        job = next(iter(self.executing))
        token, _ = self.executing.pop(job)
        self.unanswered[job] = token
        return self.take(finished(int(job[1:]), token))

    def take(self, event: e.Event) -> list[e.Effect]:
        effects = self.agent.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, e.Begin):
                self.begin(effect)
            elif isinstance(effect, e.Send):
                assert self.linked
                if isinstance(effect.message, m.Result):
                    self.unanswered[effect.message.job] = effect.message.token
        return effects

    def begin(self, effect: e.Begin) -> None:
        for lease in effect.leases:
            job = lease.assign.job
            assert job not in self.executing, "one job never executes twice at once"
            assert job not in self.unanswered, "nor while its result is kept"
            self.executing[job] = (lease.assign.token, lease.assign.alone)
            lone = any(alone for _, alone in self.executing.values())
            assert not lone or len(self.executing) == 1


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_invariants_hold_whatever_master_and_network_do(data: st.DataObject) -> None:
    world = _World(data)
    for _ in range(60):
        world.step()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_drain_always_ends_with_nothing_left(data: st.DataObject) -> None:
    world = _World(data)
    for _ in range(data.draw(st.integers(0, 40))):
        world.step()
    assert world.drain() == e.Exit(0, "SIGTERM")
    assert not world.executing
    assert not world.unanswered
    assert world.agent.held == 0
