"""The harness itself: exit status, output, a deadline, and nothing left on the host."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from tests.fakes.process import Process
from tests.netem_root import uml
from tests.shared import REPOSITORY, wait_until


@pytest.fixture(autouse=True)
def _needs_uml() -> None:
    uml.need_uml()


def test_a_command_runs_inside_and_its_status_and_output_come_back(tmp_path: Path) -> None:
    heard: list[str] = []
    left = f"lookout-{secrets.token_hex(8)}"
    script = f"""
        uname -r; tc qdisc add dev lo root netem loss 1% && tc qdisc show dev lo
        echo e >&2; echo "$GREETING"; touch /tmp/{left} /run/{left}; printf 'no\\nend'; exit 3
    """
    done = uml.run(
        ["sh", "-c", script], timeout_s=60, env={"GREETING": "häuser $HOME"}, on_output=heard.append
    )
    release, qdisc, *rest = done.output.splitlines()
    assert done.returncode == 3
    assert release == uml.release().name != os.uname().release
    assert "netem" in qdisc
    assert "loss 1%" in qdisc
    assert rest == ["e", "häuser $HOME", "no", "end"]
    assert not done.output.endswith("\n"), "the output is what the command wrote, no more"
    assert "".join(heard) == done.output
    assert not [folder for folder in ("/tmp", "/run") if Path(folder, left).exists()]


def test_a_command_that_does_not_end_is_ended_with_everything_it_started() -> None:
    with pytest.raises(uml.UmlFailed, match=r"ran for 4\.0 s") as caught:
        uml.run(["sh", "-c", "cat /proc/cmdline; sleep 1000 & sleep 1000"], timeout_s=4.0)
    # The failure quotes the output, and so says where the guest lived.
    folder = _folder(str(caught.value))
    assert processes(folder) == []
    assert not Path(folder).exists()


def test_a_guest_whose_starter_is_killed_ends_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.netem_root.uml", "--timeout", "100"]
    command += ["sh", "-c", "cat /proc/cmdline; sleep 1000"]
    with Process(
        "starter", command, log_path=tmp_path / "log", env=dict(os.environ), cwd=REPOSITORY
    ) as starter:
        folder = _folder(starter.wait_line("LOOKOUT_UML=", timeout_s=60.0).string)
        assert processes(folder) != []
        starter.kill9()
        wait_until(lambda: not processes(folder), uml.END_TIMEOUT_S, "the end of the guest")
    shutil.rmtree(folder)


def _folder(text: str) -> str:
    found = re.search(r"LOOKOUT_UML=(\S+)", text)
    assert found is not None, text
    return found[1]


def processes(folder: str) -> list[int]:
    """Processes of the guest that has this folder: each has its kernel's command line."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if _is_of(p, folder)]


def _is_of(process: psutil.Process, folder: str) -> bool:
    return f"LOOKOUT_UML={folder}" in (process.info["cmdline"] or [])


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml, "KERNEL", "linux.gone")
    monkeypatch.setattr(uml, "_NEEDED", {"linux.gone": "user-mode-linux"})
    assert uml.why_not() == "a kernel with sch_netem needs: apt-get install user-mode-linux"
    monkeypatch.setenv("LOOKOUT_REQUIRE", "uml")
    with pytest.raises(pytest.fail.Exception, match="LOOKOUT_REQUIRE lists uml"):
        uml.need_uml()
