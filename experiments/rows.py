"""One line of raw data for each image of a run: what its client saw, and what the table adds."""

from __future__ import annotations

from typing import Final

import msgspec

CALM: Final = "calm"
WARMUP: Final = "warmup"
COUNTED: Final = "counted"


class JobRow(msgspec.Struct, kw_only=True, frozen=True):
    """One image. Times `…_s` are monotonic seconds of the machine; `None` is "not known".

    `phase`: `calm` rows find out what the model says without faults, `warmup` rows are
    discarded, `counted` rows are the result. `label` is the class that the picture's folder
    gives it, `right_class` what the model says in calm weather, `class_id` what came.
    """

    point: str
    replicate: int
    phase: str
    number: int
    picture: str
    image: str
    size_bytes: int
    text_bits: int
    began_s: float
    ended_s: float
    ok: bool
    error: str | None = None
    tries: int = 0
    job: str | None = None
    state: str | None = None
    class_id: int | None = None
    label: int | None = None
    right_class: int | None = None
    attempts: int | None = None
    worker: str | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    link_ms: float | None = None

    @property
    def latency_ms(self) -> float:
        """From the client's wish to its answer."""
        return (self.ended_s - self.began_s) * 1000.0
