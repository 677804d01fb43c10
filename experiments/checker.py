"""Did the service keep its word? A pure judgement over a `History`.

    accepted => exactly one visible outcome, and the right one for the image
    no outcome without acceptance
    tokens only rise
    no terminal state is left

Each rule is a function that gives its violations; `check` is all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from experiments.history import TERMINAL, Grant, History

SHOWN_MAX: Final = 20
# Grants of one instant of the core are one decision; wall time has microseconds in the table.
CLOCK_SLACK_S: Final = 0.005


class Rule(StrEnum):
    """The promise that was broken."""

    LOST = "accepted, and gone"
    OPEN = "accepted, and without an outcome"
    TWICE = "more than one outcome"
    WRONG = "not the right outcome for the image"
    UNASKED = "an outcome that nobody asked for"
    TOKEN = "a fencing token that did not rise"  # noqa: S105
    LEFT = "a terminal state was left"
    DIFFERS = "told one outcome, and another is kept"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise, and about which job."""

    rule: Rule
    job: str
    detail: str

    def __str__(self) -> str:
        return f"{self.job}: {self.rule}: {self.detail}"


def check(history: History) -> list[Violation]:
    """Every violation, in the order of the rules."""
    rules = (_accepted, _asked_for, _right, _told, _one_winner, _tokens)
    return [violation for rule in rules for violation in rule(history)]


def report(violations: list[Violation]) -> str:
    """What people read: how many of each, and the first ones in full."""
    if not violations:
        return "history: no violation"
    counts = Counter(violation.rule for violation in violations)
    lines = [f"history: {len(violations)} VIOLATIONS"]
    lines += [f"  {count} x {rule}" for rule, count in counts.most_common()]
    lines += [f"  {violation}" for violation in violations[:SHOWN_MAX]]
    return "\n".join(lines)


def _accepted(history: History) -> Iterator[Violation]:
    """Whoever got a 2xx finds the job in the table, ended, as it was told to the client."""
    rows = {row.job: row for row in history.rows}
    for seen in history.seen:
        if seen.job is None:
            continue
        row = rows.get(seen.job)
        if row is None:
            yield Violation(Rule.LOST, seen.job, "a client got a 2xx, the table has no such job")
        elif row.state not in TERMINAL:
            yield Violation(Rule.OPEN, seen.job, f"its state after the run is {row.state}")
        elif row.image != seen.image:
            detail = f"a client sent image {seen.image[:12]}, the job holds {row.image[:12]}"
            yield Violation(Rule.WRONG, seen.job, detail)
        elif seen.state in TERMINAL and (seen.state, seen.class_id) != (row.state, row.class_id):
            detail = (
                f"the client was told {seen.state} (class {seen.class_id}), "
                f"the table has {row.state} (class {row.class_id})"
            )
            yield Violation(Rule.DIFFERS, seen.job, detail)
    heard = {seen.job for seen in history.seen}
    for row in history.rows:
        if row.state not in TERMINAL and row.job not in heard:
            yield Violation(Rule.OPEN, row.job, f"in the table with state {row.state}")


def _asked_for(history: History) -> Iterator[Violation]:
    """A job belongs to one image that a client sent, and an image to one job.

    A client that never heard its 2xx may still have a job; but not two for one image
    sent once: that is what its idempotency key forbids.
    """
    sent = Counter(seen.image for seen in history.seen)
    held = Counter(row.image for row in history.rows)
    for image, count in held.items():
        if count > sent[image]:
            rule = Rule.TWICE if sent[image] else Rule.UNASKED
            jobs = [row.job for row in history.rows if row.image == image]
            detail = f"image {image[:12]} was sent {sent[image]} times and has jobs {jobs[:8]}"
            yield Violation(rule, jobs[-1], detail)
    claims = Counter(seen.job for seen in history.seen if seen.job is not None)
    for job, count in claims.items():
        if count > 1:
            yield Violation(Rule.TWICE, str(job), f"{count} images were answered with this job")
    known = {row.job for row in history.rows}
    for told in history.told:
        if told.job not in known and told.state in TERMINAL:
            yield Violation(Rule.UNASKED, told.job, f"told {told.state}, the table lacks the job")


def _right(history: History) -> Iterator[Violation]:
    """The class is the one that the same model gives to the same bytes in calm weather."""
    for row in history.rows:
        wanted = history.right.get(row.image)
        if row.state == "succeeded" and row.class_id is None:
            yield Violation(Rule.WRONG, row.job, "succeeded without a class")
        elif row.state == "succeeded" and wanted is not None and row.class_id != wanted:
            detail = f"class {row.class_id}, and image {row.image[:12]} is of class {wanted}"
            yield Violation(Rule.WRONG, row.job, detail)


def _told(history: History) -> Iterator[Violation]:
    """Once the stream has told an outcome, it tells nothing else of that job."""
    ended: dict[str, tuple[str, int | None]] = {}
    for told in history.told:
        before = ended.get(told.job)
        if told.state in TERMINAL and before is None:
            ended[told.job] = (told.state, told.class_id)
        elif before is not None and told.state not in TERMINAL:
            yield Violation(Rule.LEFT, told.job, f"from {before[0]} to {told.state}")
        elif before is not None and before != (told.state, told.class_id):
            yield Violation(
                Rule.TWICE, told.job, f"told {before}, then {(told.state, told.class_id)}"
            )
    for row in history.rows:
        before = ended.get(row.job)
        if before is not None and before != (row.state, row.class_id):
            yield Violation(
                Rule.DIFFERS, row.job, f"told {before}, kept {(row.state, row.class_id)}"
            )


def _one_winner(history: History) -> Iterator[Violation]:
    """At most one lease of a job succeeds, and it is the one whose token the job keeps."""
    winners = defaultdict(list)
    for grant in history.grants:
        if grant.outcome == "succeeded":
            winners[grant.job].append(grant.token)
    rows = {row.job: row for row in history.rows}
    for job, tokens in winners.items():
        row = rows.get(job)
        if len(tokens) > 1:
            yield Violation(Rule.TWICE, job, f"the leases {tokens} all succeeded")
        elif row is not None and row.state == "succeeded" and row.token != tokens[0]:
            yield Violation(Rule.DIFFERS, job, f"lease {tokens[0]} won, the job keeps {row.token}")


def _tokens(history: History) -> Iterator[Violation]:
    """No token twice; a lease that was granted later has a higher one."""
    seen: dict[int, Grant] = {}
    for grant in history.grants:
        if (first := seen.setdefault(grant.token, grant)) is not grant:
            detail = f"token {grant.token} was also given to {first.worker} for {first.job}"
            yield Violation(Rule.TOKEN, grant.job, detail)
        if history.last_token is not None and grant.token > history.last_token:
            detail = f"token {grant.token} is above the durable mark {history.last_token}"
            yield Violation(Rule.TOKEN, grant.job, detail)
    # The highest so far, and the earliest time at which it was granted.
    top, top_s = -1, 0.0
    # Nobody knows when a core that died granted what its successor took.
    known = [grant for grant in history.grants if not grant.granted_before]
    for grant in sorted(known, key=lambda grant: (grant.granted_s, grant.token)):
        apart_s = grant.granted_s - top_s
        if grant.token < top and apart_s > CLOCK_SLACK_S:
            detail = f"token {grant.token} was granted {apart_s:.3f} s after token {top}"
            yield Violation(Rule.TOKEN, grant.job, detail)
        if grant.token > top:
            top, top_s = grant.token, grant.granted_s
