"""How often an execution ends with its worker's death, and how many deaths of one job that
chance explains. Pure.

The master can't know whether an image killed its worker or somebody else did (the kernel
out of memory, a person, an experiment). What it can know is how often workers die under
*other* images: where that is seldom, three deaths are evidence against an image; where
workers die all the time, they are none.
"""

from __future__ import annotations

import math

# Executions that are added to those seen, as ones that ended well: a first death
# elsewhere is no storm yet.
_PRIOR_EXECUTIONS = 10.0


class Hazard:
    """Executions begun and deaths under them, of late: all are halved at `remembered_max`."""

    def __init__(self, remembered_max: int) -> None:
        self._remembered_max = remembered_max
        self._begun = 0.0
        self._died = 0.0

    def began(self, executions: int = 1) -> None:
        """Executions began."""
        self._begun += executions
        if self._begun >= self._remembered_max:
            self._begun /= 2.0
            self._died /= 2.0

    def died(self, executions: int) -> None:
        """A death ended these; negative to take it back."""
        self._died = max(0.0, self._died + executions)

    def elsewhere(self, attempts: int, died_with: int) -> float:
        """Probability that an execution of another job ends by a death.

        `attempts` are the job's own failed attempts, `died_with` the executions that ended
        with its own, itself among them: they are no evidence about others.
        """
        died = max(0.0, self._died - died_with)
        begun = max(died, self._begun - attempts)
        return died / (begun + _PRIOR_EXECUTIONS)


def deaths_allowed(hazard: float, chance: float, least: int, most: int) -> int:
    """Deaths at which a job is poison: so many meet an innocent one with less than `chance`.

    An innocent job's executions each end by a death with probability `hazard`: k of them
    do with hazard^k. Not below `least`, not above `most`.
    """
    if hazard <= 0.0:
        return least
    if hazard >= 1.0:
        return most
    return min(most, max(least, math.ceil(math.log(chance) / math.log(hazard))))
