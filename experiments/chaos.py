"""The scenario of `experiments check`: everything breaks, by chance, for as long as asked. Pure."""

from __future__ import annotations

from typing import Any, Final

from experiments.errors import BadScenario

SECONDS_MIN: Final = 5.0
SECONDS_MAX: Final = 30 * 24 * 3600.0
# A long check is many replicates: each ends with a quiet cluster whose history is judged.
ROUND_S: Final = 120.0
ROUNDS_MAX: Final = 100
FAULTS_PER_MINUTE: Final = 30.0


def table(seconds: float, seed: int) -> dict[str, Any]:
    """Null workers that crash, hang, slow down and are cut off, a core that crashes, and
    clients that hear of their acceptance early and sometimes lose an answer.

    Raises:
        BadScenario: `seconds` is out of its limits.
    """
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise BadScenario(f"{seconds:g} s: give {SECONDS_MIN:g} s to 30 days")
    rounds = min(ROUNDS_MAX, max(1, round(seconds / ROUND_S)))
    length_s = seconds / rounds
    return {
        "name": "check",
        "title": "Random crashes, hangs, cuts and core restarts",
        "question": "Does every accepted image get exactly one outcome, the right one?",
        "metric": "throughput_per_s",
        "seed": seed,
        "level": "message",
        "cluster": {
            "workers": 3,
            "slots": 4,
            "engine": "null",
            "service_ms": 2.0,
            "lease_ttl_s": 2.0,
        },
        "images": {"count": 16, "size_px": 32},
        "load": {"concurrency": 16},
        "client": {"wait_s": 0.5},
        "message": {"lost_replies": 0.02},
        "faults": {
            "per_minute": FAULTS_PER_MINUTE,
            "kinds": ["crash", "hang", "slow", "cut", "core-crash"],
            "shortest_s": 0.2,
            "longest_s": 4.0,
            "dead_at_once": 2,
        },
        "stop": {
            "replicates": rounds,
            "minimum_images": 10_000_000,
            "longest_s": length_s,
        },
    }
