"""The command `netem`: what it says and its exit status; doctor; inventories; scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from netem import cli, doctor
from netem.doctor import FEATURES, Finding
from netem.errors import BadSpec, MissingFeature
from netem.remote.inventory import Host, read_inventory
from netem.tc.command import Done
from netem.tc.runner import drive
from tests.shared import REPOSITORY, skip_without

SCRIPTS = REPOSITORY / "netem" / "scripts"
INVENTORY = """
[defaults]
user = "me"
interface = "eth1"
sudo = true
[hosts.node-1]
address = "192.0.2.11"
[hosts.node-2]
address = "192.0.2.12"
interface = "eth2"
port = 2222
"""


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["set", "lo", "loss=10"], 2, "loss=10 has no unit"),
        (["set", "lo"], 2, "no link is described"),
        (["set", "lo", "--egress", "delay=5"], 2, "delay=5 has no unit"),
        (["set", "nope0", "loss=1%"], 1, "there is no interface nope0"),
        (["show", "nope0"], 1, "there is no interface nope0"),
        (["remote", "set", "/nonexistent.toml", "loss=1%"], 2, "can't read the inventory"),
        (["remote", "refresh", "/nonexistent.toml", "--ttl", "1"], 2, "--ttl 1 is out of range"),
    ],
)
def test_what_can_not_be_done_is_said(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("ip") is None:
        skip_without("uml", "there is no ip on the PATH (apt-get install iproute2)")
    assert cli.main(arguments) == status
    assert says in capsys.readouterr().err


def test_doctor_says_what_is_here_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = _interfaces()
    cli.main(["doctor", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["feature"] for line in lines] == [feature.name for feature in FEATURES]
    assert all(line["remedy"] and line["purpose"] for line in lines)
    assert _interfaces() == before


def _interfaces() -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def _findings(*absent: str) -> list[Finding]:
    return drive(
        doctor.examine(),
        lambda command: Done(2, stderr="no\n") if _probed(command.argv) in absent else Done(),
    )


def _probed(argv: tuple[str, ...]) -> str:
    return next(feature.name for feature in FEATURES if feature.probe == argv)


@pytest.mark.parametrize(
    ("absent", "backend"),
    [((), "tc"), (("sch_netem",), "userspace"), (("tun",), "tc"), (("bbr", "nft"), "tc")],
)
def test_the_backend_is_the_first_that_has_what_it_needs(
    absent: tuple[str, ...], backend: str
) -> None:
    assert doctor.choose(_findings(*absent)) == backend


def test_without_any_backend_the_message_says_what_to_do() -> None:
    with pytest.raises(MissingFeature) as caught:
        doctor.choose(_findings("sch_netem", "tun"))
    assert "tc lacks sch_netem (load it with `modprobe sch_netem`" in str(caught.value)
    assert "userspace lacks tun" in str(caught.value)
    with pytest.raises(MissingFeature, match="tc lacks sch_netem"):
        doctor.choose(_findings("sch_netem"), "tc")


def test_the_ssh_session_is_found_where_sudo_dropped_the_variable() -> None:
    """A shell that has it starts one that has not, which asks."""
    ask = "from netem.ssh_session import ssh_connection; print(ssh_connection())"
    inner = f"env -u SSH_CONNECTION {sys.executable} -c '{ask}'; true"
    done = subprocess.run(
        ["sh", "-c", inner],
        env={**os.environ, "SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "192.0.2.1 50000 192.0.2.2 22\n"


def test_an_inventory_has_hosts_with_defaults() -> None:
    assert read_inventory(INVENTORY) == (
        Host("node-1", "192.0.2.11", "eth1", user="me", sudo=True),
        Host("node-2", "192.0.2.12", "eth2", user="me", sudo=True, port=2222),
    )
    assert [host.name for host in read_inventory(INVENTORY, ["node-2"])] == ["node-2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[hosts", "no TOML"),
        ("", "0 hosts"),
        ("x = 1", "takes \\[defaults\\]"),
        ('[hosts.a]\naddress = "h"', "a: interface is missing"),
        ('[hosts.a]\ninterface = "e"', "a: address is missing"),
        ('[hosts.a]\naddress = "h"\nifc = "e"', "unknown key 'ifc'; a host has address"),
        ('[hosts.a]\naddress = "h"\ninterface = "e"\nport = "22"', "must be of type int"),
        ('[hosts.a]\naddress = "h"\ninterface = "e"\nport = 0', "from 1 to 65535"),
        ('[hosts.a]\naddress = "h"\ninterface = "e"\nsudo = 1', "must be of type bool"),
    ],
)
def test_a_wrong_inventory_is_refused_with_the_fix(text: str, says: str) -> None:
    with pytest.raises(BadSpec, match=says):
        read_inventory(text)


def test_a_host_that_is_not_in_the_inventory_is_named() -> None:
    with pytest.raises(BadSpec, match="no host node-9; there are node-1, node-2"):
        read_inventory(INVENTORY, ["node-9"])


@pytest.mark.parametrize(
    "script", [*sorted(SCRIPTS.glob("*.sh")), REPOSITORY / "tests/netem_root/init.sh"], ids=str
)
def test_a_script_is_clean_posix(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        skip_without("uml", "there is no shellcheck on the PATH (apt-get install shellcheck)")
    done = subprocess.run(
        ["shellcheck", "--shell", "sh", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_without_arguments_says_how_to_call_it(script: Path) -> None:
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"sh {script.name} " in done.stderr
