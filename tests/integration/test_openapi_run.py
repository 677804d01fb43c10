"""schemathesis reads the OpenAPI document of a running server and tries what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.cluster import Cluster
from tests.shared import REPOSITORY

CONFIG = REPOSITORY / "tests" / "integration" / "schemathesis.toml"
RUN_S = 200


@pytest.mark.integration
@pytest.mark.slow
def test_the_server_does_what_its_openapi_document_says(
    cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    lookout = cluster(workers=1, worker_args=["--engine", "null", "--enable-fault-hooks"])
    lookout.wait_ready()
    document = f"{lookout.url}/api/v1/openapi.json"
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIG, "run", document],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    # A run that tried nothing would be clean as well.
    assert "Test cases:" in done.stdout, done.stdout
    assert "24 total" in done.stdout, done.stdout
