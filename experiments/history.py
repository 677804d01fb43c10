"""What happened, as records: what clients saw, what the core says, what its table holds.

Pure data; `ledger` reads the table, `load` and `watch` make the others. Times are
seconds of one clock within a kind of record, and only order within it matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One image as its client saw it. `job` is None if no 2xx came; `image` its SHA-256.

    `state` is the last that was heard; `class_id` the answer, None without one.
    """

    image: str
    job: str | None
    state: str | None
    class_id: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """One `job` event of the core's stream, in the order in which it came."""

    job: str
    state: str
    class_id: int | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One job of the durable table after the run."""

    job: str
    state: str | None
    image: str
    class_id: int | None
    token: int | None
    worker: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """One lease of the audit: who got which job under which token, and how it ended.

    `granted_s` is the core's clock. A lease of a core that died has a record only if a later
    core took its result: `granted_before`, and `granted_s` is when that was.
    """

    job: str
    token: int
    worker: str
    outcome: str
    granted_s: float
    ended_s: float
    granted_before: bool = False


@dataclass(frozen=True, slots=True)
class Audit:
    """One lease with when it began to execute, None if it never did."""

    grant: Grant
    started_s: float | None
    blamed: bool


@dataclass(frozen=True, slots=True)
class History:
    """One run. `right` gives, by image, the class that the model says in calm weather."""

    seen: list[Seen] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    right: dict[str, int] = field(default_factory=dict)
    last_token: int | None = None
