"""The clock of slow frames, with literal times."""

from __future__ import annotations

from wire.limits import FrameClock, Limits


def test_bytes_that_keep_coming_do_not_reset_it() -> None:
    clock = FrameClock()
    assert clock.observe(pending_bytes=10, frames_received=0, now=5.0)
    assert clock.observe(pending_bytes=900, frames_received=0, now=60.0)
    assert clock.since_s == 5.0


def test_a_frame_that_ends_resets_it_though_another_has_begun() -> None:
    clock = FrameClock()
    clock.observe(pending_bytes=10, frames_received=0, now=5.0)
    assert clock.observe(pending_bytes=10, frames_received=1, now=6.0)
    assert clock.since_s == 6.0
    assert not clock.observe(pending_bytes=0, frames_received=2, now=7.0)
    assert clock.since_s is None


def test_a_frame_that_begins_after_others_counts_from_its_own_first_byte() -> None:
    clock = FrameClock()
    assert not clock.observe(pending_bytes=0, frames_received=9, now=1.0)
    assert clock.observe(pending_bytes=1, frames_received=9, now=8.0)
    assert clock.observe(pending_bytes=2, frames_received=9, now=9.0)
    assert clock.since_s == 8.0


def test_large_frames_may_take_longer() -> None:
    limits = Limits(frame_timeout_s=60, frame_rate_floor_bytes_s=1000)
    assert limits.frame_allowance_s(0) == 60
    assert limits.frame_allowance_s(30_000) == 90
