"""One direction: each step of `netem_enqueue` at literal times, and what holds for any traffic."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netem.backend import Counters
from netem.emulator.direction import FRAME_HEADER_BYTES, NEVER_S, Direction
from netem.grammar import parse
from netem.spec import LinkSpec
from tests.unit.netem.specs import link_specs

PACKET_BYTES = 1500
FRAME_BITS = (PACKET_BYTES + FRAME_HEADER_BYTES) * 8


def direction(text: str, seed: str = "seed") -> Direction:
    """A direction from a LinkSpec's text."""
    return Direction(parse(text), seed)


def packet(number: int, size_bytes: int = PACKET_BYTES) -> bytes:
    """A packet that can be told from others."""
    return number.to_bytes(4, "big").ljust(size_bytes, b"\0")


def numbers(packets: list[tuple[float, bytes]]) -> list[int]:
    """Which packets these are."""
    return [int.from_bytes(p[:4], "big") for _, p in packets]


def drain(link: Direction) -> list[tuple[float, int]]:
    """When each packet leaves, until none waits."""
    departures = []
    while (due_s := link.next_due_s) < NEVER_S:
        departures += [(due_s, number) for number in numbers(link.due(due_s))]
    return departures


def test_a_perfect_link_passes_everything_at_once_and_once() -> None:
    link = direction("0")
    link.offer(1.0, packet(1))
    link.offer(1.0, packet(2))
    assert numbers(link.due(1.0)) == [1, 2]
    assert link.due(1.0) == []
    assert link.next_due_s == NEVER_S
    assert link.counters() == Counters(2, 2 * PACKET_BYTES, 0, 0)


def test_a_delayed_packet_leaves_at_its_time_and_once() -> None:
    link = direction("delay=50ms")
    link.offer(1.0, packet(1))
    assert link.next_due_s == 1.05
    assert link.due(1.049) == []
    assert link.due(1.07) == [(1.05, packet(1))], "late, and says when it was to leave"
    assert link.due(2.0) == []
    assert link.counters() == Counters(1, PACKET_BYTES, 0, 0)


def test_the_mean_delay_is_what_packets_really_waited() -> None:
    link = direction("delay=50ms")
    assert link.mean_delay_ms() is None
    link.offer(1.0, packet(1))
    link.offer(1.02, packet(2))
    link.due(1.06)
    assert link.mean_delay_ms() == pytest.approx(60.0)
    link.due(1.08)
    assert link.mean_delay_ms() == pytest.approx(60.0)
    link.change(parse("delay=50ms"), "seed")
    assert link.mean_delay_ms() is None


def test_all_is_lost_on_a_cut_link_but_what_waits_still_arrives() -> None:
    link = direction("delay=50ms")
    link.offer(0.0, packet(1))
    link.change(parse("loss=100%"), "seed")
    link.offer(0.01, packet(2))
    assert drain(link) == [(0.05, 1)]
    assert link.counters().dropped_packets == 1


def test_the_queue_limit_drops_what_comes_last() -> None:
    link = direction("delay=10ms limit=2")
    for number in range(4):
        link.offer(0.0, packet(number))
    assert [number for _, number in drain(link)] == [0, 1]
    assert link.counters() == Counters(2, 2 * PACKET_BYTES, 2, 0)


def test_packets_are_sent_one_after_the_other_at_the_rate() -> None:
    link = direction("rate=1mbit")
    for number in range(3):
        link.offer(0.0, packet(number))
    frame_s = FRAME_BITS / 1e6
    times = [time_s for time_s, _ in drain(link)]
    assert times == [frame_s, frame_s + frame_s, frame_s + frame_s + frame_s]


def test_delay_passes_while_a_packet_waits_for_its_turn() -> None:
    # As in the kernel: the second starts when the first has been sent, not a delay later.
    link = direction("rate=1mbit delay=100ms")
    link.offer(0.0, packet(0))
    link.offer(0.0, packet(1))
    frame_s = FRAME_BITS / 1e6
    (first_s, _), (second_s, _) = drain(link)
    assert first_s == 0.1 + frame_s
    assert abs(second_s - (0.1 + 2 * frame_s)) < 1e-9


def test_an_idle_link_gives_no_credit() -> None:
    link = direction("rate=1mbit")
    link.offer(0.0, packet(0))
    link.due(1.0)
    link.offer(5.0, packet(1))
    assert link.next_due_s == 5.0 + FRAME_BITS / 1e6


def test_a_reordered_packet_overtakes_those_that_wait() -> None:
    link = direction("delay=10ms reorder=100% gap=3")
    for number in range(6):
        link.offer(0.0, packet(number))
    # Each third has no delay.
    assert numbers(link.due(0.0)) == [2, 5]
    assert numbers(link.due(0.01)) == [0, 1, 3, 4]


def test_a_duplicate_arrives_twice_and_is_not_doubled_again() -> None:
    link = direction("duplicate=100% delay=1ms")
    link.offer(0.0, packet(7))
    assert [number for _, number in drain(link)] == [7, 7]


def test_a_lost_packet_that_was_duplicated_arrives_once() -> None:
    # The kernel draws both: one copy more, one less.
    link = direction("duplicate=100% loss=50% seed=1")
    sent, arrived = 10_000, 0
    for number in range(sent):
        link.offer(0.0, packet(number, 20))
        arrived += len(link.due(0.0))
    # Half are lost once (1 arrives), half of the others lose their copy (1), the rest give 2.
    assert abs(arrived / sent - 1.25) < 0.02


def test_corruption_changes_one_bit() -> None:
    link = direction("corrupt=100%")
    link.offer(0.0, packet(1))
    ((_, received),) = link.due(0.0)
    assert _different_bits(received, packet(1)) == 1


def _different_bits(a: bytes, b: bytes) -> int:
    assert len(a) == len(b)
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def test_jitter_lets_packets_overtake_each_other() -> None:
    link = direction("delay=10ms jitter=10ms")
    for number in range(100):
        link.offer(number * 1e-3, packet(number))
    order = [number for _, number in drain(link)]
    assert sorted(order) == list(range(100))
    assert order != sorted(order)


Traffic = st.lists(st.tuples(st.floats(0, 0.02), st.integers(20, 1500)), min_size=1, max_size=80)


def play(spec: LinkSpec, traffic: list[tuple[float, int]]) -> list[tuple[float, bytes]]:
    """Offer packets with these gaps and sizes; what leaves, and when."""
    link, now_s, left = Direction(spec, "seed"), 0.0, []

    def leave_until(end_s: float) -> None:
        while (due_s := link.next_due_s) <= end_s and due_s < NEVER_S:
            left.extend((max(due_s, now_s), p) for _, p in link.due(max(due_s, now_s)))

    for number, (gap_s, size_bytes) in enumerate(traffic):
        leave_until(now_s + gap_s)
        now_s += gap_s
        link.offer(now_s, packet(number, size_bytes))
        assert link.counters().queued_packets <= spec.queue_packets + 1
    leave_until(float("inf"))
    counters = link.counters()
    assert counters.queued_packets == 0
    assert counters.delivered_packets == len(left)
    assert counters.delivered_bytes == sum(len(p) for _, p in left)
    extra = len(traffic) if spec.duplicate else 0
    assert len(traffic) <= counters.offered_packets <= len(traffic) + extra
    return left


@given(link_specs(), Traffic)
def test_every_packet_is_delivered_or_counted_as_dropped(
    spec: LinkSpec, traffic: list[tuple[float, int]]
) -> None:
    play(spec, traffic)


@given(link_specs(), Traffic)
def test_the_same_seed_decides_the_same(spec: LinkSpec, traffic: list[tuple[float, int]]) -> None:
    assert play(spec, traffic) == play(spec, traffic)


@given(st.integers(1, 10**9), Traffic)
def test_nothing_overtakes_without_jitter_and_reorder(
    rate_bytes: int, traffic: list[tuple[float, int]]
) -> None:
    spec = LinkSpec(rate_bps=max(rate_bytes * 8, 1000), delay_ms=3, loss=0.2)
    order = numbers(play(spec, traffic))
    assert order == sorted(order)


@given(st.integers(10_000, 10**8), Traffic)
def test_no_more_leaves_than_the_rate_carries(
    rate_bytes: int, traffic: list[tuple[float, int]]
) -> None:
    rate_bps = rate_bytes * 8
    left = play(LinkSpec(rate_bps=rate_bps), traffic)
    for (before_s, _), (time_s, p) in itertools.pairwise(left):
        assert time_s - before_s >= (len(p) + FRAME_HEADER_BYTES) * 8 / rate_bps - 1e-9


def test_another_kind_of_draw_does_not_change_what_is_lost() -> None:
    traffic = [(0.001, 100)] * 500
    plain = {p[:4] for _, p in play(parse("loss=30%"), traffic)}
    jittered = {p[:4] for _, p in play(parse("loss=30% delay=5ms jitter=5ms"), traffic)}
    assert plain == jittered
    assert 0 < len(plain) < 500
