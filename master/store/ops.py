"""What the writer is asked to do: one small record per write, each with its future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from master.store.base import AttemptEnd, JobEnd, NewPart
from master.store.images import Place
from master.store.write import Write


@dataclass(slots=True, eq=False)
class Op:
    """Base: `outcome` is what the future resolves to once the group is durable."""

    future: Write[Any] = field(default_factory=Write, init=False)
    outcome: Any = field(default=None, init=False)


@dataclass(slots=True, eq=False)
class Add(Op):
    """`crcs` were computed by the caller; `places` are set when the images are written."""

    part: NewPart
    crcs: Sequence[int]
    size_bytes: int
    places: Sequence[Place] = ()


@dataclass(slots=True, eq=False)
class Finish(Op):
    """An outcome; resolves to False if the job had one."""

    end: JobEnd


@dataclass(slots=True, eq=False)
class Record(Op):
    """A row of the audit."""

    attempt: AttemptEnd


@dataclass(slots=True, eq=False)
class Reserve(Op):
    """The high-water mark of tokens."""

    last: int


@dataclass(slots=True, eq=False)
class Seal(Op):
    """Close an open submission that was given up."""

    submission: int


@dataclass(slots=True, eq=False)
class Remove(Op):
    """Delete terminal jobs, many of them in several groups.

    `todo` is what is left, last first (None before the first group), `taken` how many of
    it the current group looks at, `outcome` what that group removed.
    """

    jobs: Sequence[int] | None
    todo: list[int] | None = None
    taken: int = 0
    removed: list[int] = field(default_factory=list)

    def advance(self) -> bool:
        """One group is durable; True when nothing is left to do."""
        self.removed += self.outcome
        self.outcome = self.removed
        if self.todo:
            del self.todo[-self.taken :]
        return not self.todo


@dataclass(slots=True, eq=False)
class Probe(Op):
    """Written after a failed commit, by the writer itself.

    The frames of that commit may lie in the write-ahead log, and a crash might bring
    back what was reported as failed; the next commit writes over them.
    """


@dataclass(slots=True, eq=False)
class Stop(Op):
    """The last one: the thread ends after it."""


def is_patient(op: Op) -> bool:
    """Whether it may wait for others while jobs wait for workers: outcomes, as whoever waits for
    one has waited longer, the audit, and uploads whose senders say so.
    """
    return op.part.patient if isinstance(op, Add) else isinstance(op, Finish | Record)


@dataclass(slots=True, eq=False)
class Batch:
    """Writes that may be put down kind by kind: adds, then outcomes, then the audit.

    Their order among each other shows nowhere: a job is added before it ends, and of
    two outcomes of one job the first stays first.
    """

    adds: list[Add] = field(default_factory=list)
    finishes: list[Finish] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    token: int = 0

    def put(self, op: Add | Finish | Record | Reserve) -> None:
        """Sort an op in."""
        if isinstance(op, Add):
            self.adds.append(op)
        elif isinstance(op, Finish):
            self.finishes.append(op)
        elif isinstance(op, Record):
            self.records.append(op)
        else:
            self.token = max(self.token, op.last)


def plan(ops: Sequence[Op]) -> list[Batch | Seal | Remove | Probe]:
    """Steps of one transaction, in the order asked: what can be batched is."""
    steps: list[Batch | Seal | Remove | Probe] = []
    for op in ops:
        if isinstance(op, Seal | Remove | Probe):
            steps.append(op)
        elif isinstance(op, Add | Finish | Record | Reserve):
            if not steps or not isinstance(steps[-1], Batch):
                steps.append(Batch())
            batch = steps[-1]
            assert isinstance(batch, Batch)
            batch.put(op)
    return steps
