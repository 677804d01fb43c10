"""Labs of real namespaces: hosts, names, links, and an end that leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from netem.errors import BadSpec, NetemError, Refused
from netem.grammar import parse
from netem.lab import Lab, down, folder, processes, star
from netem.spec import CUT, Duplex
from tests.netem_root.labs import in_host, lab_name, need_netns, peer, start_peer
from tests.shared import REPOSITORY, wait_until

pytestmark = pytest.mark.usefixtures("_needs_netns")
END_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def _needs_netns() -> None:
    need_netns()


@pytest.fixture(scope="module")
def lab(_needs_netns: None) -> Iterator[Lab]:
    """A master, two workers and a client; each test sets the links that it uses."""
    with Lab.up(star(lab_name("star"), workers=2, clients=1)) as one:
        yield one


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON line of a peer that ends."""
    said, _ = process.communicate(timeout=30.0)
    measured: dict[str, Any] = json.loads(said)
    return measured


def send(lab: Lab, count: int, *, gap_us: int = 500, size_bytes: int = 100) -> dict[str, Any]:
    """Datagrams from worker-1 to the master: what arrived."""
    sink = start_peer(lab, "master", "datagram-sink")
    in_host(lab, "worker-1", *peer("datagrams", "master", *map(str, (count, gap_us, size_bytes))))
    return result(sink)


# --- hosts -----------------------------------------------------------------------------------


def test_a_host_has_its_name_its_address_and_the_names_of_the_others(lab: Lab) -> None:
    assert in_host(lab, "worker-2", "hostname").strip() == "worker-2"
    addresses = json.loads(in_host(lab, "worker-2", "ip", "-j", "-4", "addr", "show", "eth0"))
    assert addresses[0]["addr_info"][0]["local"] == lab.address("worker-2") == "10.77.1.2"
    for host in ("master", "worker-1", "client-1"):
        found = in_host(lab, "worker-2", "getent", "hosts", host).split()
        assert found[0] == lab.address(host)


def test_a_host_sees_no_network_but_the_lab(lab: Lab) -> None:
    links = json.loads(in_host(lab, "master", "ip", "-j", "link"))
    assert {link["ifname"] for link in links} == {"lo", "eth0"}
    routes = json.loads(in_host(lab, "master", "ip", "-j", "route", "show", "table", "main"))
    assert [route["dst"] for route in routes] == ["10.77.0.0/16"]


def test_the_network_of_the_machine_is_not_touched() -> None:
    def network() -> list[str]:
        shown = ["link", "addr", "route", "rule", "netns"]
        return [_host_ip(*words.split()) for words in shown]

    before = network()
    with Lab.up(star(lab_name("apart"), workers=1)) as one:
        in_host(one, "worker-1", "true")
        assert network() == before
    assert network() == before


def _host_ip(*arguments: str) -> str:
    # Only what stays the same on an idle machine: no counters, no lifetimes.
    done = subprocess.run(["ip", "-br", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_command_is_a_child_like_any_other(lab: Lab, tmp_path: Path) -> None:
    command = lab.command("worker-1", ["sh", "-c", "pwd; exit 7"], cwd=tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, f"{tmp_path}\n")
    process = subprocess.Popen(lab.command("worker-1", ["sleep", "1000"]))
    wait_until(lambda: process.pid in lab.pids(), 5.0, "sleep to be in the host")
    process.terminate()
    assert process.wait(5.0) == -15


def test_asking_for_a_host_that_is_not_there(lab: Lab) -> None:
    for ask in (lambda: lab.command("worker-9", ["true"]), lambda: lab.cut("worker-9")):
        with pytest.raises(BadSpec, match="has no host 'worker-9'; it has master, worker-1"):
            ask()


# --- links -----------------------------------------------------------------------------------


def test_packets_are_lost_as_requested_and_counted(lab: Lab) -> None:
    lab.set("worker-1", Duplex(egress=parse("loss=20% seed=5")))
    got = send(lab, 2000, gap_us=200)
    counters = lab.status()["worker-1"].reading.egress.counters
    # The seed makes the drawn losses certain; what is compared is what really arrived.
    assert got["packets"] == got["distinct"] == counters.delivered_packets
    assert counters.offered_packets == 2000
    assert abs(counters.dropped_packets / 2000 - 0.2) < 0.04
    assert counters.delivered_bytes == got["packets"] * (100 + 28)


def test_a_delay_is_never_shorter_than_requested(lab: Lab) -> None:
    lab.set("worker-1", Duplex(egress=parse("delay=20ms")))
    lab.set("master", Duplex(ingress=parse("delay=10ms")))
    got = send(lab, 200, gap_us=2000)
    lab.set("master", Duplex())
    assert got["packets"] == 200
    assert got["p1_ms"] >= 30.0
    assert got["overtaken"] == 0


def test_corrupted_packets_do_not_pass_the_checksum(lab: Lab) -> None:
    lab.set("worker-1", Duplex(egress=parse("corrupt=50% seed=5")))
    got = send(lab, 1000, gap_us=200)
    counters = lab.status()["worker-1"].reading.egress.counters
    # Nearly all of the corrupted ones travel on: it is the receiver that drops them.
    assert counters.delivered_packets == 1000
    assert abs(got["packets"] / 1000 - 0.5) < 0.08


def test_jitter_and_duplicates_reach_the_receiver(lab: Lab) -> None:
    lab.set("worker-1", Duplex(egress=parse("delay=20ms jitter=10ms duplicate=20% seed=5")))
    got = send(lab, 500, gap_us=500)
    assert got["distinct"] == 500
    assert 550 < got["packets"] < 650
    assert got["overtaken"] > 50
    assert got["spread_ms"] > 4.0


def test_a_stream_is_no_faster_than_the_rate(lab: Lab) -> None:
    lab.set("worker-1", Duplex.both(parse("rate=20mbit delay=2ms")))
    sink = start_peer(lab, "master", "stream-sink")
    in_host(lab, "worker-1", *peer("stream", "master", "1"))
    got = result(sink)
    assert got["bytes"] > 1_000_000
    assert got["mbit_s"] < 20.0


def test_the_mtu_is_that_of_the_interface(lab: Lab) -> None:
    lab.set("worker-1", Duplex.both(parse("mtu=900")))
    shown = json.loads(in_host(lab, "worker-1", "ip", "-j", "link", "show", "eth0"))
    assert shown[0]["mtu"] == 900
    lab.set("worker-1", Duplex())
    shown = json.loads(in_host(lab, "worker-1", "ip", "-j", "link", "show", "eth0"))
    assert shown[0]["mtu"] == 1500


def test_a_cut_host_is_silent_until_it_is_healed(lab: Lab) -> None:
    link = Duplex(egress=parse("delay=1ms"))
    lab.set("worker-1", link)
    lab.cut("worker-1")
    state = lab.status()["worker-1"]
    assert (state.is_cut, state.requested) == (True, link)
    assert state.reading.duplex == Duplex.both(CUT)
    in_host(lab, "worker-1", *peer("datagrams", "master", "50", "100"))
    counters = lab.status()["worker-1"].reading.egress.counters
    assert (counters.dropped_packets, counters.delivered_packets) == (50, 0)
    # A new LinkSpec for a cut link holds from the heal on.
    lab.set("worker-1", Duplex())
    assert lab.status()["worker-1"].is_cut
    lab.heal("worker-1")
    state = lab.status()["worker-1"]
    assert (state.is_cut, state.reading.duplex) == (False, Duplex())
    assert send(lab, 50)["packets"] == 50


# --- other ways in ---------------------------------------------------------------------------


def test_a_port_of_a_host_is_reached_from_outside(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("from inside")
    server = subprocess.Popen(
        lab.command(
            "worker-2",
            [sys.executable, "-u", "-m", "http.server", "8000", "--bind", "127.0.0.1"],
            cwd=tmp_path,
        ),
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    server.stdout.readline()
    lab.cut("worker-2")
    with lab.forward("worker-2", 8000) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/hello.txt", timeout=10.0, trust_env=False)
    lab.heal("worker-2")
    server.kill()
    server.communicate()
    assert answer.text == "from inside"


def netem(*arguments: str | Path, status: int = 0) -> str:
    """Run the command `netem lab`, as a person does; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "netem", "lab", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=60.0,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_line_from_up_to_down(tmp_path: Path) -> None:
    name = lab_name("cli")
    topology, timeline = tmp_path / "star.toml", tmp_path / "timeline.toml"
    topology.write_text('workers = 1\n[link]\ndelay = "2ms"\n')
    timeline.write_text(
        '[[step]]\nat_s = 0.1\nset = "worker-1"\nlink = { loss = "1%" }\n'
        '[[step]]\nat_s = 0.2\ncut = "worker-1"\n'
    )
    try:
        said = netem("up", topology, "--name", name, "--owner", str(os.getpid()))
        assert "10.77.1.1      delay=2ms (each way)" in said
        this = ("--lab", name)
        assert netem("exec", *this, "worker-1", "hostname") == "worker-1\n"
        netem("exec", *this, "worker-1", "--", "sh", "-c", "exit 7", status=7)
        played = netem("play", *this, timeline).splitlines()
        assert [line.split("ms  ")[1] for line in played] == [
            "set worker-1 loss=1%",
            "cut worker-1",
        ]
        assert "cut (then loss=1%)" in netem("status", *this)
        netem("heal", *this, "worker-1")
        netem("set", *this, "--ingress", "worker-1", "rate=1mbit")
        state = json.loads(netem("status", *this, "--json"))["links"]["worker-1"]
        assert state["requested"]["egress"]["loss"] == 0.01
        assert state["requested"]["ingress"]["rate_bps"] == 1_000_000
        assert "no host 'worker-9'" in netem("cut", *this, "worker-9", status=2)
    finally:
        refused = netem("up", topology, "--name", name, status=1)
        assert f"`netem lab down {name}` ends it" in refused
        assert f"lab {name} is gone" in netem("down", name)
    assert "there is no lab" in netem("status", "--lab", name, status=1)
    assert "there is no lab" in netem("status", name, status=1)


UNPRIVILEGED = """
import subprocess, sys
from netem.lab import Lab, star
with Lab.up(star(sys.argv[1], workers=1)) as lab:
    said = subprocess.check_output(lab.command("worker-1", ["hostname"]), text=True)
    lab.cut("worker-1")
    capabilities = [line for line in open("/proc/self/status") if line.startswith("CapEff")]
    print(said.strip(), lab.status()["worker-1"].is_cut, int(capabilities[0].split()[1], 16))
    child = subprocess.Popen(lab.command("worker-1", ["sleep", "1000"]))
print(child.wait())
"""


def test_a_user_without_any_capability_has_a_lab_too() -> None:
    # Where this is root it is taken away: a user who owns root's files, and may do nothing.
    drop = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
    done = subprocess.run(
        [*drop, sys.executable, "-c", UNPRIVILEGED, lab_name("user")],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=60.0,
        check=False,
    )
    assert done.stdout.split() == ["worker-1", "True", "0", "-9"], done.stderr


# --- the end ---------------------------------------------------------------------------------


def end_of(pid: int) -> None:
    """Wait until a process is gone, or waits for its parent to notice."""

    def gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_until(gone, END_TIMEOUT_S, f"process {pid} to end")


def assert_nothing_left(name: str, *pids: int) -> None:
    """Neither these processes nor the lab's folder."""
    for pid in pids:
        end_of(pid)
    wait_until(lambda: name not in folder.names(), END_TIMEOUT_S, f"lab {name} to be forgotten")


def child_in(lab: Lab) -> subprocess.Popen[bytes]:
    """A process in a host that nobody ends, in a session of its own."""
    process = subprocess.Popen(lab.command("worker-1", ["sleep", "1000"]), start_new_session=True)
    wait_until(lambda: process.pid in lab.pids(), 5.0, "the child to be in the host")
    return process


def helpers_of(lab: Lab) -> list[int]:
    """The keeper, and the emulator where there is one."""
    keeper = psutil.Process(lab.record.keeper_pid)
    return [keeper.pid, *(child.pid for child in keeper.children())]


def test_down_ends_processes_that_ignore_signals_and_left_their_session() -> None:
    lab = Lab.up(star(lab_name("down"), workers=1))
    script = "trap '' TERM HUP INT; setsid sleep 1000 & env -i sleep 1000 & wait"
    shell = subprocess.Popen(lab.command("worker-1", ["sh", "-c", script]))
    wait_until(lambda: len(lab.pids()) == 3, 5.0, "three processes in the host")
    pids, helpers = lab.pids(), helpers_of(lab)
    lab.down()
    assert shell.wait(5.0) == -9
    assert_nothing_left(lab.name, *pids, *helpers)
    with pytest.raises(NetemError, match="there is no lab"):
        Lab.find(lab.name)
    with pytest.raises(NetemError, match="does not answer"):
        lab.cut("worker-1")


RUNNER = """
import subprocess, sys, time
from netem.lab import Lab, star
lab = Lab.up(star(sys.argv[1], workers=1))
child = subprocess.Popen(lab.command("worker-1", ["sleep", "1000"]), start_new_session=True)
keeper = lab.record.keeper_pid
emulator = open(f"/proc/{keeper}/task/{keeper}/children").read()
print(child.pid, keeper, emulator, flush=True)
time.sleep(1000)
"""


def test_when_the_runner_is_killed_the_lab_ends() -> None:
    name = lab_name("owner")
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, name], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert runner.stdout is not None
    with runner.stdout:
        pids = [int(word) for word in runner.stdout.readline().split()]
    assert all(psutil.pid_exists(pid) for pid in pids)
    assert Lab.find(name).is_kept
    runner.kill()
    runner.wait()
    assert_nothing_left(name, *pids)


def test_when_its_time_is_over_the_lab_ends() -> None:
    lab = Lab.up(star(lab_name("ttl"), workers=1, ttl_s=600.0), owner_pid=0)
    child, helpers = child_in(lab), helpers_of(lab)
    lab.renew(0.2)
    assert child.wait(END_TIMEOUT_S) == -9
    wait_until(lambda: not lab.is_kept, END_TIMEOUT_S, "the keeper to end")
    assert_nothing_left(lab.name, *helpers)


def test_down_after_the_keeper_was_killed_leaves_nothing() -> None:
    lab = Lab.up(star(lab_name("crash"), workers=1))
    child, helpers = child_in(lab), helpers_of(lab)
    # One that lives elsewhere, and must live on.
    other = subprocess.Popen(["sleep", "1000"], env={processes.MARK: lab.record.lab_id})
    os.kill(lab.record.keeper_pid, 9)
    wait_until(lambda: not lab.is_kept, 5.0, "the keeper to be gone")
    assert child.poll() is None
    with pytest.raises(NetemError, match=f"netem lab down {lab.name}"):
        lab.status()
    assert down(lab.name)
    assert child.wait(END_TIMEOUT_S) == -9
    assert_nothing_left(lab.name, *helpers)
    assert other.poll() is None
    other.kill()
    other.wait()
    assert not down(lab.name)


def test_when_the_emulator_is_killed_the_lab_ends() -> None:
    lab = Lab.up(star(lab_name("emulator"), workers=1, backend="userspace"))
    child, (keeper, emulator) = child_in(lab), helpers_of(lab)
    os.kill(emulator, 9)
    assert child.wait(END_TIMEOUT_S) == -9
    wait_until(lambda: not lab.is_kept, END_TIMEOUT_S, "the keeper to end")
    assert_nothing_left(lab.name, keeper, emulator)


def test_a_name_is_taken_once(lab: Lab) -> None:
    with pytest.raises(Refused, match=f"there is a lab {lab.name} already"):
        Lab.up(star(lab.name))
    assert lab.is_kept
