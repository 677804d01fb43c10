"""Whether to take a result whose lease is no longer live.

Fencing decides who may change a job: a lease's right ends with the lease, and
a later lease has a higher token. But a classification has no side effects, so
a late answer that is right is as good as any, and taking it saves the next
worker the work. It is taken only if all of these hold:

1. The job has no outcome yet. (The first outcome stays, so nothing is taken twice.)
2. It is a success. A late fault says little about the job: the retry decides.
3. The model in force made it. A live lease may finish with the model that was
   in force at its grant: the answer says which one made it and was asked for
   then. A late one would be an answer that nobody waits for any more.
4. The token was really granted for this job, to a worker of that name (a
   worker that reconnects keeps its name). Tokens granted in this life of the
   core are remembered with the job, the last 16 of them. A token below the
   first of this life was granted by an earlier life, which remembers nothing:
   it is believed, since only workers that proved the join token get this far.

Everything else is stale: refused with a reason, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LateResult:
    """A result without a live lease, and what is known about its job.

    `granted` holds the (token, worker name) pairs remembered for the job.
    `model_in_force` is None until the shell has said which model that is.
    `first_of_life` is the first token of this life, None before any.
    """

    token: int
    worker: str | None
    model: str
    success: bool
    job_open: bool
    granted: tuple[tuple[int, str], ...]
    model_in_force: str | None
    first_of_life: int | None


def refusal(late: LateResult) -> str | None:
    """Why the result is not taken; None if it is."""
    if not late.job_open:
        return "the job has its outcome already, or was never accepted"
    if not late.success:
        return "the lease is over, and a late fault is not taken"
    if late.model_in_force is not None and late.model != late.model_in_force:
        return f"the lease is over, and model {late.model} is not the one in force"
    if not _was_granted(late):
        return "the token was not granted for this job to this worker"
    return None


def _was_granted(late: LateResult) -> bool:
    if late.first_of_life is not None and late.token < late.first_of_life:
        return True
    return late.worker is not None and (late.token, late.worker) in late.granted
