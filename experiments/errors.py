"""What can go wrong in an experiment: one root, and whose fault it is.

`BadScenario`, `Unlike` and `BadRun` are about what was asked for; `ProcessFailed`
about a process of the cluster; `HistoryBroken` is the finding that a promise was.
"""

from __future__ import annotations


class ExperimentError(Exception):
    """Root of every error that experiments raise on purpose; the message is for people."""


class BadScenario(ExperimentError, ValueError):
    """A scenario that can't be run; nothing was started."""


class BadRun(ExperimentError, ValueError):
    """A folder that holds no run, or not all of one."""


class Unlike(ExperimentError):
    """Two runs that answer different questions: their ratio would mean nothing."""


class ProcessFailed(ExperimentError):
    """A process of the cluster ended, or said nothing, before it did what the run waits for."""


class HistoryBroken(ExperimentError):
    """The history checker found a promise that did not hold."""
