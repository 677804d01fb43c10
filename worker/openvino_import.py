"""OpenVINO, imported so that nothing phones home.

The package `openvino` depends on `openvino-telemetry`, and importing it sends an
event to a web service unless the user has opted out. Where the telemetry package
can't be imported OpenVINO falls back to a stub of its own, so it is made
unimportable before. `openvino.tools.ovc`, the converter's command line that would
send it, isn't imported at all: conversion uses the frontend beneath it. Every
import of OpenVINO in Lookout goes through `import_openvino`.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

# None in `sys.modules` makes an import raise ModuleNotFoundError, which OpenVINO expects.
_BLOCKED = ("openvino_telemetry", "openvino.tools.ovc")


@functools.cache
def import_openvino() -> Any:
    """Return the package. Raises `ImportError` where it isn't installed."""
    block_telemetry()
    return importlib.import_module("openvino")


@functools.cache
def the_core() -> Any:
    """The one `openvino.Core` of this process; it lives as long as the process.

    Each core's CPU plugin gives the thread that makes it a signal stack (`sigaltstack`), and
    puts the former one back when it goes. Of two cores that go in the order in which they came
    the second puts back the first one's, which is unmapped by then: the next signal that Python
    handles in that thread ends the process by SIGSEGV, without a word (OpenVINO 2026.4.1).
    """
    return import_openvino().Core()


def block_telemetry() -> None:
    """Make the telemetry package unimportable in this process."""
    for name in _BLOCKED:
        if sys.modules.get(name) is None:
            sys.modules[name] = None  # type: ignore[assignment]
