"""The failure detector: does silence of one worker look like death?

Owns the belief `alive`, `suspect` or `dead` about one connection, from the
arrival times of its heartbeats alone. It is the phi accrual detector of
Hayashibara, Défago, Yared and Katayama, "The φ Accrual Failure Detector",
SRDS 2004: with arrivals one interval apart on average, phi says how unlikely
the silence so far is,

    phi(t) = -log10(P(a heartbeat comes later than t))

so at phi 1 one silence of ten is misjudged, at phi 2 one of a hundred. The
tail is that of a normal distribution with the mean and standard deviation of
the last intervals. As in Akka's implementation, an acceptable pause is added
to the mean and the deviation has a floor.

A normal tail alone is too light for TCP. Each retransmission that is lost
doubles the wait for the next one, so with a loss p silences longer than t are
about as frequent as t^-log2(1/p): a power of t. Where one beat is half a
second late, one in a thousand is many times that. So what counts is the
longest delay that the link showed lately (the silence beyond one interval, with
a half-life): the deviation is at least so large that death means a silence of
one interval and `excess_factor` times that delay. Measured with real TCP in 5
runs of 24 connections and 10 minutes (losses from 10 to 30 %, 100 ms each
way): with the normal tail alone 12 to 65 false deaths a run; with this rule
none but for silences beyond the hard timeout, which are TCP's own.

Beside phi stand a hard timeout (death whatever was learned) and a minimum
silence while the link is still being learned. It decides nothing about jobs.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from master.states import Liveness
from wire.errors import LocalFault

_US: Final = 1_000_000
_ERFC_Z_MAX: Final = 35.0


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Thresholds; what is counted in beats scales with the heartbeat interval.

    With beats every 0.5 s on a calm link these defaults suspect after 1.8 s of
    silence and declare death after 2.8 s (10 s within the first 30 s of a
    connection). A jittery link gets more patience, by its own record, and never
    more than `hard_timeout_beats` (10 s). Half of a record is forgotten within
    `excess_half_life_beats` (2.5 minutes).
    """

    phi_suspect: float = 2.0
    phi_dead: float = 10.0
    window_beats: int = 150
    seed_beats: int = 10
    acceptable_pause_beats: float = 1.5
    deviation_min_beats: float = 0.5
    excess_factor: float = 8.0
    excess_half_life_beats: float = 300.0
    learning_beats: int = 60
    learning_silence_beats: float = 20.0
    hard_timeout_beats: float = 20.0
    revive_beats: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.phi_suspect < self.phi_dead <= 300:
            raise LocalFault(
                f"phi_suspect {self.phi_suspect} and phi_dead {self.phi_dead}: "
                "give 0 < phi_suspect < phi_dead <= 300"
            )
        if not 0 <= self.seed_beats <= self.window_beats or self.window_beats < 2:
            raise LocalFault(
                f"window_beats {self.window_beats} and seed_beats {self.seed_beats}: "
                "give a window of at least 2 that holds the seed"
            )
        if self.deviation_min_beats <= 0 or self.acceptable_pause_beats < 0:
            raise LocalFault(
                "deviation_min_beats must be above 0, acceptable_pause_beats not below"
            )
        if not 1 < self.learning_silence_beats <= self.hard_timeout_beats:
            raise LocalFault("give 1 < learning_silence_beats <= hard_timeout_beats")
        if self.excess_factor < 0 or self.excess_half_life_beats <= 0 or self.revive_beats < 1:
            raise LocalFault(
                "give excess_factor >= 0, excess_half_life_beats > 0, revive_beats >= 1"
            )


def phi_of(z: float) -> float:
    """-log10 of the upper tail of the standard normal distribution at `z`.

    Beyond double precision it goes on with the tail's asymptote
    exp(-z²/2) / (z·√(2π)) (Abramowitz & Stegun 26.2.12), so phi stays finite.
    """
    if z > _ERFC_Z_MAX:
        return (z * z / 2 + math.log(z * math.sqrt(2 * math.pi))) / math.log(10)
    return -math.log10(0.5 * math.erfc(z / math.sqrt(2)))


def z_of(phi: float) -> float:
    """Where the upper tail of the standard normal distribution is 10^-phi."""
    return -NormalDist().inv_cdf(10.0**-phi)


class Detector:
    """The belief about one worker. Times are monotonic seconds.

    `beat` and `sign` may revive; only `check` condemns, so that a beat which
    waited in a socket buffer while we slept is seen before the verdict.
    """

    __slots__ = (
        "_beat_at",
        "_beats",
        "_config",
        "_excess_kept",
        "_excess_s",
        "_interval_s",
        "_intervals_us",
        "_returned_beats",
        "_square_us",
        "_sum_us",
        "_verdict_s",
        "_z_dead",
        "_z_suspect",
        "liveness",
        "seen_at",
    )

    def __init__(self, config: DetectorConfig, heartbeat_interval_s: float, now: float) -> None:
        self._config = config
        self._interval_s = heartbeat_interval_s
        self._z_suspect = z_of(config.phi_suspect)
        self._z_dead = z_of(config.phi_dead)
        # Whole microseconds: sums over the window stay exact, however long it runs.
        self._intervals_us: deque[int] = deque()
        self._sum_us = 0
        self._square_us = 0
        self._beats = 0
        self._excess_s = 0.0
        # What silence means, until something is learned: each message asks for it thrice.
        self._verdict_s: tuple[float, float] | None = None
        self._excess_kept = 0.5 ** (1.0 / config.excess_half_life_beats)
        self._beat_at: float | None = None
        self._returned_beats = 0
        self.seen_at = now
        self.liveness = Liveness.ALIVE
        for number in range(config.seed_beats):
            self._learn(heartbeat_interval_s * (0.5 if number % 2 else 1.5))

    # --- what arrives ----------------------------------------------------------------

    def beat(self, now: float) -> None:
        """A heartbeat arrived."""
        self._excess_s *= self._excess_kept
        self._verdict_s = None
        self._survived(now - self.seen_at)
        if self.liveness is Liveness.DEAD:
            self._returned_beats += 1
            if self._returned_beats >= self._config.revive_beats:
                self.liveness = Liveness.ALIVE
        else:
            if self._beat_at is not None:
                self._learn(now - self._beat_at)
            self.liveness = Liveness.ALIVE
        self._beats += 1
        self._verdict_s = None
        self._beat_at = now
        self.seen_at = now

    def sign(self, now: float) -> None:
        """Another message arrived: life, but nothing to learn the interval from."""
        self._survived(now - self.seen_at)
        self.seen_at = now
        if self.liveness is Liveness.SUSPECT:
            self.liveness = Liveness.ALIVE

    def forgive(self, now: float) -> None:
        """Count silence from now on: it was we who did not listen."""
        self.seen_at = max(self.seen_at, now)
        self._beat_at = None

    def _survived(self, silence_s: float) -> None:
        # Longer ones are no link's: a stopped process makes them, or a cable. Not learned.
        if silence_s < self._config.hard_timeout_beats * self._interval_s:
            excess_s = silence_s - self._interval_s
            if excess_s > self._excess_s:
                self._excess_s = excess_s
                self._verdict_s = None

    def _learn(self, interval_s: float) -> None:
        self._verdict_s = None
        if len(self._intervals_us) == self._config.window_beats:
            oldest = self._intervals_us.popleft()
            self._sum_us -= oldest
            self._square_us -= oldest * oldest
        interval_us = round(interval_s * _US)
        self._intervals_us.append(interval_us)
        self._sum_us += interval_us
        self._square_us += interval_us * interval_us

    # --- what follows ----------------------------------------------------------------

    def check(self, now: float) -> Liveness:
        """Judge the silence so far; also sets `liveness`."""
        suspect_at, dead_at = self._verdicts()
        if now >= dead_at:
            if self.liveness is not Liveness.DEAD:
                self._returned_beats = 0
            self.liveness = Liveness.DEAD
        elif now >= suspect_at and self.liveness is Liveness.ALIVE:
            self.liveness = Liveness.SUSPECT
        return self.liveness

    def next_deadline(self) -> float:
        """When `check` would change its mind if nothing arrives; infinite once dead."""
        if self.liveness is Liveness.DEAD:
            return math.inf
        suspect_at, dead_at = self._verdicts()
        return suspect_at if self.liveness is Liveness.ALIVE else dead_at

    def phi(self, now: float) -> float:
        """The suspicion level at `now`."""
        expected_s, deviation_s = self._arrivals()
        return phi_of((now - self.seen_at - expected_s) / deviation_s)

    def _arrivals(self) -> tuple[float, float]:
        """Mean with the acceptable pause, and the deviation to judge by, in seconds."""
        config, count = self._config, len(self._intervals_us)
        pause_s = config.acceptable_pause_beats * self._interval_s
        mean_s, deviation_s = self._interval_s, 0.0
        if count:
            # count²·variance, in whole numbers: no cancellation.
            spread = count * self._square_us - self._sum_us * self._sum_us
            mean_s, deviation_s = self._sum_us / count / _US, math.sqrt(spread) / count / _US
        survived_s = self._interval_s + config.excess_factor * self._excess_s
        return mean_s + pause_s, max(
            config.deviation_min_beats * self._interval_s,
            deviation_s,
            (survived_s - mean_s - pause_s) / self._z_dead,
        )

    def _verdicts(self) -> tuple[float, float]:
        """When it is to be suspected and when declared dead, if nothing arrives."""
        if self._verdict_s is None:
            self._verdict_s = self._judge()
        suspect_s, dead_s = self._verdict_s
        return self.seen_at + suspect_s, self.seen_at + dead_s

    def _judge(self) -> tuple[float, float]:
        """Seconds of silence to suspicion and to death, by what is known now."""
        config, interval_s = self._config, self._interval_s
        expected_s, deviation_s = self._arrivals()
        dead_s = expected_s + self._z_dead * deviation_s
        if self._beats < config.learning_beats:
            dead_s = max(dead_s, config.learning_silence_beats * interval_s)
        dead_s = min(dead_s, config.hard_timeout_beats * interval_s)
        return min(expected_s + self._z_suspect * deviation_s, dead_s), dead_s
