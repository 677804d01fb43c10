"""What tests in labs share: whether this machine can make one, and names that nobody else uses."""

from __future__ import annotations

import functools
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from netem.errors import MissingFeature
from netem.lab import Lab, star
from tests.shared import skip_without

PEER = Path(__file__).with_name("peer.py")


def lab_name(kind: str) -> str:
    """A name for a lab of this test run."""
    return f"test-{kind}-{os.getpid()}-{secrets.token_hex(2)}"


@functools.cache
def why_no_lab() -> str | None:
    """Why this machine can't make a lab; None if it can."""
    try:
        with Lab.up(star(lab_name("probe"), workers=0)):
            return None
    except MissingFeature as problem:
        return problem.message


def need_netns() -> None:
    """The test ends here where no lab can be: skipped, or failed where `netns` is required."""
    if (reason := why_no_lab()) is not None:
        skip_without("netns", f"no lab can be made here: {reason}")


def in_host(lab: Lab, host: str, *argv: str, timeout_s: float = 30.0) -> str:
    """Run a command in a host to its end; its output.

    Raises:
        AssertionError: it failed; quotes both outputs.
    """
    done = subprocess.run(
        lab.command(host, argv), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{argv} in {host}: {done.stdout}{done.stderr}"
    return done.stdout


def start_peer(lab: Lab, host: str, *arguments: str) -> subprocess.Popen[str]:
    """Start `peer.py` in a host, and wait until it serves (it says so with one line)."""
    process = subprocess.Popen(
        lab.command(host, peer(*arguments)), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "READY\n"
    return process


def peer(*arguments: str) -> Sequence[str]:
    """Command line of `peer.py`."""
    return [sys.executable, str(PEER), *arguments]
