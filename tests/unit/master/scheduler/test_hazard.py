"""How many deaths chance explains."""

from __future__ import annotations

import pytest

from master.scheduler.hazard import Hazard, deaths_allowed


@pytest.mark.parametrize(
    ("hazard", "allowed"),
    [(0.0, 3), (0.01, 3), (0.1, 6), (0.4, 16), (0.8, 62), (0.99, 64), (1.0, 64)],
)
def test_deaths_allowed_grow_with_the_hazard_between_their_limits(
    hazard: float, allowed: int
) -> None:
    assert deaths_allowed(hazard, 1e-6, 3, 64) == allowed


def test_what_a_job_did_itself_is_no_evidence_about_others() -> None:
    hazard = Hazard(512)
    hazard.began(3)
    hazard.died(3)
    assert hazard.elsewhere(attempts=3, died_with=3) == 0.0
    assert hazard.elsewhere(attempts=0, died_with=0) == 3 / 13


def test_a_neighbour_that_died_with_it_counts_as_its_own() -> None:
    hazard = Hazard(512)
    hazard.began(4)
    hazard.died(4)
    assert hazard.elsewhere(attempts=1, died_with=4) == 0.0


def test_the_past_fades() -> None:
    hazard = Hazard(512)
    hazard.began(100)
    hazard.died(80)
    stormy = hazard.elsewhere(0, 0)
    for _ in range(4000):
        hazard.began()
    assert hazard.elsewhere(0, 0) < 0.01 < 0.7 < stormy


def test_a_death_can_be_taken_back_and_never_goes_below_none() -> None:
    hazard = Hazard(512)
    hazard.began(10)
    hazard.died(2)
    hazard.died(-3)
    assert hazard.elsewhere(0, 0) == 0.0
