"""Boots a kernel that has `sch_netem` and runs the tests of `guest/` inside it."""

from __future__ import annotations

import pytest

from tests.netem_root import uml

# On a quiet machine they take a small part of this.
TIMEOUT_S = 600.0


def run_inside(*files: str) -> None:
    """Run guest tests in one boot; all of them must pass, and none may be missing."""
    uml.need_uml()
    paths = [f"tests/netem_root/guest/{file}" for file in files]
    options = [
        "-q",
        "-s",
        "--color=no",
        "--durations=5",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    done = uml.run_python(["-m", "pytest", *options, *paths], timeout_s=TIMEOUT_S)
    print(done.output)
    assert done.returncode == 0, done.output
    assert " passed" in done.output.splitlines()[-1]


@pytest.mark.timeout(TIMEOUT_S + uml.BOOT_TIMEOUT_S)
def test_the_backend_tc_a_cluster_on_it_and_hosts_over_ssh() -> None:
    run_inside("test_tc.py", "test_cluster_on_netem.py", "test_remote.py")


@pytest.mark.timeout(TIMEOUT_S + uml.BOOT_TIMEOUT_S)
def test_labs_and_the_contract_by_both_backends() -> None:
    run_inside("test_lab.py", "test_contract.py")
