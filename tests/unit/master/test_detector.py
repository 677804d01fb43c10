"""The failure detector: on literal times, on simulated bad links, on arrivals of real TCP."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.detector import Detector, DetectorConfig, phi_of, z_of
from master.states import Liveness

INTERVAL_S = 0.5
ARRIVALS = Path(__file__).parent / "scheduler" / "tcp_arrivals.json"
NORMAL_TAIL_ONLY = DetectorConfig(excess_factor=0.0, learning_beats=0)


def _beating(until: float = 60.0, config: DetectorConfig | None = None) -> Detector:
    """A detector of a calm link that is known, its last beat at `until`."""
    detector = Detector(config or DetectorConfig(), INTERVAL_S, 0.0)
    for number in range(1, round(until / INTERVAL_S) + 1):
        detector.beat(number * INTERVAL_S)
    return detector


# --- the formula -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "phi"), [(0.0, 0.30103), (1.2816, 1.0), (2.3263, 2.0), (6.3613, 10.0), (-9.0, 0.0)]
)
def test_phi_is_the_exponent_of_the_tail(z: float, phi: float) -> None:
    assert phi_of(z) == pytest.approx(phi, abs=2e-4)
    if phi > 0.5:
        assert z_of(phi) == pytest.approx(z, abs=2e-4)


def test_phi_goes_on_where_doubles_end() -> None:
    assert phi_of(34.999) == pytest.approx(phi_of(35.001), rel=1e-3)
    assert phi_of(1e6) == pytest.approx(0.5e12 / math.log(10), rel=1e-6)


def test_phi_rises_with_the_silence() -> None:
    detector = _beating()
    values = [detector.phi(60.0 + silence_s) for silence_s in (0.5, 1.5, 1.83, 2.84, 60.0)]
    assert values == sorted(values)
    assert values[2] == pytest.approx(2.0, abs=0.05)
    assert values[3] == pytest.approx(10.0, abs=0.05)
    assert math.isfinite(values[4])


# --- a calm link -------------------------------------------------------------------------


def test_a_calm_link_is_suspected_after_1_8_s_and_dead_after_2_8_s() -> None:
    detector = _beating()
    assert detector.check(61.83) is Liveness.ALIVE
    assert detector.next_deadline() == pytest.approx(61.832, abs=0.001)
    assert detector.check(61.84) is Liveness.SUSPECT
    assert detector.next_deadline() == pytest.approx(62.840, abs=0.001)
    assert detector.check(62.83) is Liveness.SUSPECT
    assert detector.check(62.85) is Liveness.DEAD
    assert detector.next_deadline() == math.inf


def test_a_new_link_gets_ten_seconds() -> None:
    detector = _beating(until=10.0)
    assert detector.check(19.9) is Liveness.SUSPECT
    assert detector.check(20.1) is Liveness.DEAD


def test_one_that_never_beats_is_found_out_too() -> None:
    detector = Detector(DetectorConfig(), INTERVAL_S, 0.0)
    assert detector.check(9.9) is not Liveness.DEAD
    assert detector.check(10.0) is Liveness.DEAD


def test_thresholds_scale_with_the_interval() -> None:
    detector = Detector(DetectorConfig(), 5.0, 0.0)
    for number in range(1, 121):
        detector.beat(number * 5.0)
    assert detector.check(600.0 + 28.3) is Liveness.SUSPECT
    assert detector.check(600.0 + 28.5) is Liveness.DEAD


# --- coming back -------------------------------------------------------------------------


def test_a_beat_ends_suspicion_and_two_beats_end_death() -> None:
    detector = _beating()
    detector.check(62.0)
    detector.beat(62.1)
    assert detector.liveness is Liveness.ALIVE
    detector.check(90.0)
    detector.beat(90.1)
    assert detector.liveness is Liveness.DEAD
    detector.beat(90.6)
    assert detector.liveness is Liveness.ALIVE


def test_another_message_is_life_and_no_resurrection() -> None:
    detector = _beating()
    detector.check(62.0)
    detector.sign(62.0)
    assert detector.liveness is Liveness.ALIVE
    assert detector.next_deadline() > 63.8
    detector.check(90.0)
    detector.sign(90.1)
    assert detector.liveness is Liveness.DEAD


def test_our_own_deafness_is_forgiven() -> None:
    detector = _beating()
    detector.forgive(300.0)
    assert detector.check(300.0) is Liveness.ALIVE
    detector.beat(300.1)
    assert detector.check(302.9) is Liveness.SUSPECT
    assert detector.check(303.0) is Liveness.DEAD, "and nothing was learned from it"


# --- what it learns ----------------------------------------------------------------------


def test_steady_delay_changes_nothing() -> None:
    near, far = _beating(), Detector(DetectorConfig(), INTERVAL_S, 3.0)
    for number in range(1, 121):
        far.beat(number * INTERVAL_S + 3.0)
    assert far.next_deadline() - near.next_deadline() == pytest.approx(3.0)


def test_a_delay_that_was_survived_earns_eight_times_the_patience() -> None:
    detector = _beating()
    detector.beat(61.2)
    detector.beat(61.5)
    excess_s = 0.7 * 0.5 ** (1 / 300)
    assert detector._verdicts()[1] - 61.5 == pytest.approx(0.5 + 8 * excess_s)
    assert detector.check(61.5 + 6.0) is Liveness.SUSPECT
    assert detector.check(61.5 + 6.1) is Liveness.DEAD


def test_patience_never_passes_the_hard_timeout() -> None:
    detector = _beating()
    for number in range(1, 20):
        detector.beat(60.0 + number * 6.0)
    assert detector.check(174.0 + 9.9) is not Liveness.DEAD
    assert detector.check(174.0 + 10.0) is Liveness.DEAD


def test_a_stopped_process_teaches_nothing_about_the_link() -> None:
    detector = _beating()
    detector.check(90.0)
    detector.beat(90.0)
    detector.beat(90.5)
    assert detector.check(90.5 + 2.83) is Liveness.SUSPECT
    assert detector.check(90.5 + 2.85) is Liveness.DEAD


def test_what_was_learned_fades() -> None:
    detector = _beating()
    now = 61.5
    detector.beat(now)
    for _ in range(300):
        now += INTERVAL_S
        detector.beat(now)
    assert detector._verdicts()[1] - now == pytest.approx(0.5 + 8 * 0.5)
    for _ in range(600):
        now += INTERVAL_S
        detector.beat(now)
    assert detector._verdicts()[1] - now == pytest.approx(2.84, abs=0.01)


@given(st.lists(st.floats(0.001, 4.0), min_size=1, max_size=40))
def test_the_deadline_is_when_the_verdict_changes(intervals: list[float]) -> None:
    detector, now = Detector(DetectorConfig(), INTERVAL_S, 0.0), 0.0
    for interval_s in intervals:
        now += interval_s
        while (due := detector.next_deadline()) <= now:
            before = detector.liveness
            assert detector.check(math.nextafter(due, 0.0)) is before
            assert detector.check(due) is not before
        detector.beat(now)


def test_the_window_forgets_exactly() -> None:
    detector = _beating(until=10.0)
    rng, now = random.Random(5), 10.0
    for _ in range(5000):
        now += rng.uniform(0.0, 1.0)
        detector.beat(now)
    kept = [us / 1e6 for us in detector._intervals_us]
    assert len(kept) == 150
    assert detector._sum_us == sum(detector._intervals_us)
    assert detector._square_us == sum(us * us for us in detector._intervals_us)
    assert sum(kept) / 150 == pytest.approx(0.5, abs=0.1)


# --- bad links ---------------------------------------------------------------------------


def _deaths(arrivals: Iterable[float], config: DetectorConfig) -> tuple[int, int]:
    """How often a worker that lived was suspected and declared dead.

    Silences beyond the hard timeout are left out: no detector could wait for them.
    """
    detector, before = Detector(config, INTERVAL_S, 0.0), 0.0
    suspected = died = 0
    for now in arrivals:
        judged = now - before < config.hard_timeout_beats * INTERVAL_S
        while detector.next_deadline() <= now:
            verdict = detector.check(detector.next_deadline())
            suspected += judged and verdict is Liveness.SUSPECT
            died += judged and verdict is Liveness.DEAD
        detector.beat(now)
        before = now
    return suspected, died


def _lossy_tcp(seed: int, loss: float, delay_s: float, seconds: float) -> Iterator[float]:
    """Arrivals over a link that loses packets, in order as TCP delivers: late ones in bursts.

    A lost beat is sent again after a round trip and 200 ms (the least timeout
    of Linux), twice that if lost again, but at once after a round trip when a
    later beat got through and its selective acknowledgement tells (RFC 2018).
    """
    rng = random.Random(seed)
    delivered = 0.0
    for number in range(1, round(seconds / INTERVAL_S) + 1):
        sent, timeout_s = number * INTERVAL_S, 2 * delay_s + 0.2
        while rng.random() < loss:
            told_s = INTERVAL_S + 2 * delay_s if rng.random() >= loss else math.inf
            sent += min(timeout_s, told_s)
            timeout_s *= 2
        delivered = max(delivered, sent + delay_s * rng.uniform(1.0, 1.5))
        yield delivered


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.1, 0.2, 0.3])
def test_a_steadily_bad_link_is_no_death(loss: float) -> None:
    runs = [_deaths(_lossy_tcp(seed, loss, 0.1, 600.0), DetectorConfig()) for seed in range(40)]
    assert sum(died for _, died in runs) == 0


def test_the_normal_tail_alone_would_not_do() -> None:
    runs = [_deaths(_lossy_tcp(seed, 0.3, 0.1, 600.0), NORMAL_TAIL_ONLY) for seed in range(10)]
    assert sum(died for _, died in runs) > 0


def test_on_arrivals_of_real_tcp_nobody_dies() -> None:
    recorded = json.loads(ARRIVALS.read_text())
    counts = {"default": [0, 0], "normal": [0, 0]}
    for units in recorded["intervals"]:
        now, arrivals = 0.0, []
        for unit in units:
            now += unit * recorded["unit_s"]
            arrivals.append(now)
        for name, config in (("default", DetectorConfig()), ("normal", NORMAL_TAIL_ONLY)):
            suspected, died = _deaths(arrivals, config)
            counts[name][0] += suspected
            counts[name][1] += died
    assert counts["default"][1] == 0, counts
    assert counts["normal"][1] >= 5, counts
