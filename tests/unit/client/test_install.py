"""The client is light: what a machine that only sends images needs, and no more."""

from __future__ import annotations

import subprocess
import sys

from tests.shared import REPOSITORY

HEAVY = {"torch", "torchvision", "flask", "granian", "numpy", "PIL", "sqlite3", "matplotlib"}


def test_client_and_command_import_nothing_heavy_and_nothing_of_ours() -> None:
    code = "import client.cli, sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"client", "httpx"} <= loaded
    assert loaded & HEAVY == set()
    assert loaded & {"master", "worker", "webui", "wire"} == set()
