"""The web as a process: start, end, and what its parent needs to know."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.fakes.core import FakeCore
from tests.unit.webui.conftest import REPOSITORY, Web, picture
from webui.__main__ import configure
from webui.server import bind, connections
from wire.errors import EnvironmentFault
from wire.options import USER_TIMEOUT_MS, apply_options, hasty_options


def run_main(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "webui", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_port_in_use_is_status_3_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_main("--http", f"127.0.0.1:{port}", "--core", "127.0.0.1:1")
    assert ended.returncode == 3
    assert "another server" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--core", "127.0.0.1:1", "--processes", "0"],
        ["--core", "127.0.0.1:1", "--token-file", "/nonexistent/token"],
        ["--http", "127.0.0.1:0"],
    ],
)
def test_flags_that_say_nothing_are_status_2(arguments: list[str]) -> None:
    assert run_main(*arguments).returncode == 2


def test_flags_become_one_config(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    flags = (
        f"--http [::1]:0 --core unix:/x --token-file {token} --image-bytes-max 1000 "
        "--allow-host a.example --allow-host b.example"
    )
    config = configure(flags.split())
    assert (config.host, config.port, config.core, config.token) == ("::1", 0, "unix:/x", "secret")
    assert config.allow_hosts == ("a.example", "b.example")
    assert config.limits.image_bytes == 1000


def test_an_address_that_cannot_be_read_is_a_fault() -> None:
    with pytest.raises(EnvironmentFault):
        configure(["--http", "a:b:c", "--core", "x"])


def test_sigterm_ends_streams_finishes_requests_and_exits_0(
    own_core: FakeCore, start_web: Callable[..., Web]
) -> None:
    web = start_web(own_core)
    own_core.behaviour.job_s = 0.1
    answers: list[int] = []

    def wait_for_result() -> None:
        with web.client() as client:
            answer = client.post(
                "/api/v1/jobs?wait=10", content=picture(), headers={"Content-Type": "image/jpeg"}
            )
        answers.append(answer.status_code)

    with web.client() as client, client.stream("GET", "/api/v1/events") as stream:
        next(stream.iter_raw())
        waiting = threading.Thread(target=wait_for_result)
        waiting.start()
        own_core.wait_for(lambda: bool(own_core.jobs))
        assert web.stop() == 0
    waiting.join(10)
    assert answers == [200]


def test_a_stuck_request_does_not_keep_it_from_ending(
    own_core: FakeCore, start_web: Callable[..., Web]
) -> None:
    web = start_web(own_core, {"drain_s": 0.5})
    with socket.create_connection(("127.0.0.1", web.port)) as stuck:
        stuck.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 10\r\n\r\nabc"
        )
        began = time.monotonic()
        assert web.stop() == 0
        assert time.monotonic() - began < 5


def test_children_end_with_a_parent_that_is_killed(
    own_core: FakeCore, start_web: Callable[..., Web]
) -> None:
    web = start_web(own_core, {"processes": 2})
    children = psutil.Process(web.process.pid).children(recursive=True)
    assert len(children) >= 2
    os.kill(web.process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_a_dead_process_is_replaced(own_core: FakeCore, start_web: Callable[..., Web]) -> None:
    web = start_web(own_core)
    with web.client() as client:
        assert client.get("/readyz").status_code == 200
    (child,) = psutil.Process(web.process.pid).children()
    child.kill()
    child.wait(10)
    with web.client() as client:
        assert client.get("/healthz").status_code == 200
    (other,) = psutil.Process(web.process.pid).children()
    assert other.pid != child.pid


def test_connections_inherit_what_keeps_them_going_on_a_bad_link() -> None:
    with bind("127.0.0.1", 0) as listening:
        set_here = apply_options(listening, hasty=True)
        assert "TCP_USER_TIMEOUT" in set_here
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                for name, level, option, value in hasty_options():
                    if isinstance(value, int) and name in set_here:
                        assert accepted.getsockopt(level, option) == value, name


def test_a_listening_web_has_them() -> None:
    with bind("127.0.0.1", 0) as listening:
        user_timeout_ms = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert user_timeout_ms == USER_TIMEOUT_MS


@pytest.mark.parametrize(
    ("wanted", "files", "taken"), [(10_000, 1_048_576, 10_000), (10_000, 1024, 768), (10, 100, 1)]
)
def test_connections_are_what_the_open_files_allow(wanted: int, files: int, taken: int) -> None:
    assert connections(wanted, files) == taken
