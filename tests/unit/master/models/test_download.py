"""Downloads from a real server on loopback that breaks, lies, stalls or isn't there."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from master.models.catalogue import Pretrained
from master.models.download import download
from master.models.transfer import Pace, Patience
from tests.unit.master.models.making import Host, published, serving
from wire.errors import EnvironmentFault

DATA = bytes(range(256)) * 2048
HALF = Patience(connect_s=1.0, answer_s=1.0, stall_s=2.0)
# What the promise of 5 s may become on a machine that is busy with other things.
BUSY_S = 4.0
DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def host() -> Iterator[Host]:
    with serving(DATA) as host:
        yield host


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.pth"


def part_of(target: Path) -> Path:
    return target.with_name("weights.pth.part")


def preset(tmp_path: Path, url: str) -> Pretrained:
    original = tmp_path / "original"
    original.write_bytes(DATA)
    return published(original, url)


def fault_of(
    preset: Pretrained, target: Path, patience: Patience | None = None
) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        download(preset, target, patience)
    assert not target.exists()
    return caught.value


def test_a_whole_download_takes_its_name(tmp_path: Path, host: Host, target: Path) -> None:
    download(preset(tmp_path, host.url), target)
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]
    assert host.asked == [None]


def test_a_broken_connection_is_taken_up_where_it_broke(
    tmp_path: Path, host: Host, target: Path
) -> None:
    host.break_after = [100_000, 50_000]
    download(preset(tmp_path, host.url), target)
    assert target.read_bytes() == DATA
    assert host.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_start_goes_on_with_what_is_kept(tmp_path: Path, host: Host, target: Path) -> None:
    host.break_after = [100_000, 0]
    fault = fault_of(preset(tmp_path, host.url), target)
    assert fault.code == "download_broken"
    assert "100000 bytes are kept" in fault.reason
    assert part_of(target).read_bytes() == DATA[:100_000]
    download(preset(tmp_path, host.url), target)
    assert target.read_bytes() == DATA
    assert host.asked[-1] == "bytes=100000-"


def test_connections_that_keep_breaking_are_given_up(
    tmp_path: Path, host: Host, target: Path
) -> None:
    host.break_after = [10] * 20
    assert fault_of(preset(tmp_path, host.url), target).code == "download_broken"
    assert len(host.asked) == Patience().attempts


def test_a_server_without_ranges_is_asked_for_all_again(
    tmp_path: Path, host: Host, target: Path
) -> None:
    host.ranges, host.break_after = False, [100_000]
    download(preset(tmp_path, host.url), target)
    assert target.read_bytes() == DATA
    assert host.asked == [None, "bytes=100000-"]


def test_another_range_than_asked_for_is_refused(tmp_path: Path, host: Host, target: Path) -> None:
    host.shift, host.break_after = 7, [100_000]
    fault = fault_of(preset(tmp_path, host.url), target)
    assert "sends from byte 100007, asked was 100000" in fault.reason
    assert part_of(target).read_bytes() == DATA[:100_000]


@pytest.mark.parametrize("kept", [b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 5), DATA])
def test_a_part_of_something_else_is_replaced(
    tmp_path: Path, host: Host, target: Path, kept: bytes
) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(kept)
    download(preset(tmp_path, host.url), target)
    assert target.read_bytes() == DATA
    assert not part_of(target).exists()


def test_a_wrong_hash_is_thrown_away(tmp_path: Path, host: Host, target: Path) -> None:
    wrong = msgspec.structs.replace(preset(tmp_path, host.url), hash_prefix="00000000")
    fault = fault_of(wrong, target)
    assert fault.code == "wrong_hash"
    assert not part_of(target).exists()


def test_a_file_of_that_name_and_another_hash_is_kept_aside(
    tmp_path: Path, host: Host, target: Path
) -> None:
    target.parent.mkdir()
    target.write_bytes(b"somebody's")
    download(preset(tmp_path, host.url), target)
    assert target.read_bytes() == DATA
    assert target.with_name("weights.pth.replaced").read_bytes() == b"somebody's"


@pytest.mark.parametrize(("status", "said"), [(404, "404"), (403, "403"), (503, "503")])
def test_a_refusal_says_its_status(
    tmp_path: Path, host: Host, target: Path, status: int, said: str
) -> None:
    host.status = status
    fault = fault_of(preset(tmp_path, host.url), target)
    assert fault.code == "download_refused"
    assert said in fault.reason


def test_a_login_page_in_its_place_is_not_taken(tmp_path: Path, target: Path) -> None:
    with serving(b"<html>Please log in</html>") as portal:
        fault = fault_of(preset(tmp_path, portal.url), target)
    assert fault.code == "download_refused"
    assert "offers 26 bytes" in fault.reason


@pytest.mark.parametrize("lock", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_two_masters_do_not_write_one_file(
    tmp_path: Path, host: Host, target: Path, lock: int
) -> None:
    target.parent.mkdir()
    with part_of(target).open("wb") as other:
        fcntl.flock(other, lock)
        assert fault_of(preset(tmp_path, host.url), target).code == "download_busy"
    assert host.asked == []


def test_a_cache_that_can_not_be_made_is_said(tmp_path: Path, host: Host) -> None:
    (tmp_path / "file").write_text("")
    fault = fault_of(preset(tmp_path, host.url), tmp_path / "file" / "weights.pth")
    assert fault.code == "cache_unwritable"


@pytest.mark.parametrize("proxy", ["socks9://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_a_proxy_that_can_not_be_used_is_said(
    tmp_path: Path, host: Host, target: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    fault = fault_of(preset(tmp_path, host.url), target)
    assert fault.code == "bad_network_settings"
    assert "ALL_PROXY" in fault.reason


def test_progress_is_logged_where_there_is_no_terminal(
    tmp_path: Path, host: Host, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lookout.models"):
        download(preset(tmp_path, host.url), target)
    assert caplog.messages == ["downloading"]


def test_a_server_that_falls_silent_midway_is_given_up(tmp_path: Path, target: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA)
    with _tap(head + b"abc") as tap:
        fault = fault_of(preset(tmp_path, tap.url), target, HALF)
    assert fault.code == "no_answer", "it was asked again, from byte 3"
    assert part_of(target).read_bytes() == b"abc"


def test_an_answer_that_comes_too_late_leaves_no_connection(tmp_path: Path, target: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA)
    with _tap(head, after=threading.Event()) as tap:
        assert fault_of(preset(tmp_path, tap.url), target, HALF).code == "no_answer"
        assert tap.after is not None
        tap.after.set()
    assert tap.heard_last == b"", "the client closed"


def test_a_name_that_resolves_too_late_leaves_no_connection(tmp_path: Path, target: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA)
    with _tap(head) as tap, _resolver_held() as release:
        url = tap.url.replace("127.0.0.1", "localhost")
        assert fault_of(preset(tmp_path, url), target, HALF).code == "no_answer"
        release.set()
    assert tap.heard_last == b"", "the client closed"


@contextlib.contextmanager
def _resolver_held() -> Iterator[threading.Event]:
    """Names resolve, but only once the event is set.

    The one thing that is not real here: resolv.conf can't be changed for one process.
    """
    release, real = threading.Event(), socket.getaddrinfo

    def held(*args: Any, **options: Any) -> Any:
        release.wait()
        return real(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", held)
        try:
            yield release
        finally:
            release.set()


@dataclass
class _Tap:
    """What `_tap` serves; `heard_last` is what came after its answer, b"" for the end."""

    url: str
    after: threading.Event | None
    heard_last: bytes | None = None


@contextlib.contextmanager
def _tap(answer: bytes, after: threading.Event | None = None) -> Iterator[_Tap]:
    """A server that sends raw bytes to its first connection, and leaves others unanswered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        tap = _Tap(f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth", after)

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(DEADLINE_S)
                connection.recv(65536)
                if after is not None:
                    after.wait(DEADLINE_S)
                with contextlib.suppress(ConnectionError):
                    connection.sendall(answer)
                try:
                    tap.heard_last = connection.recv(1)
                except ConnectionError:
                    tap.heard_last = b""

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            yield tap
        finally:
            thread.join()


def test_a_trickle_is_given_up() -> None:
    pace = Pace(Patience(stall_s=10.0, stall_bytes=1000))
    pace.note(1, now=100.0)
    pace.note(998, now=109.9)
    with pytest.raises(EnvironmentFault, match="brought 999 bytes in 10 s"):
        pace.note(0, now=110.0)


def test_a_slow_line_that_brings_enough_is_not_given_up() -> None:
    pace = Pace(Patience(stall_s=10.0, stall_bytes=1000))
    for second in range(0, 200, 5):
        pace.note(501, now=100.0 + second)


# --- a network that isn't there: measured with the patience that users get -----------------


@contextlib.contextmanager
def _refused() -> Iterator[str]:
    with socket.socket() as bound:  # bound and not listening: the port stays ours and refuses
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/weights.pth"


@contextlib.contextmanager
def _black_hole() -> Iterator[str]:
    """Loopback drops the SYN of whoever comes when a listener's queue is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth"


@contextlib.contextmanager
def _silence() -> Iterator[str]:
    with serving(DATA, silent=True) as host:
        yield host.url


@contextlib.contextmanager
def _hanging_resolver() -> Iterator[str]:
    with _refused() as url, _resolver_held():
        yield url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize(
    ("network", "codes"),
    [
        (_refused, {"unreachable"}),
        (_black_hole, {"unreachable"}),
        (_silence, {"no_answer"}),
        (_hanging_resolver, {"no_answer"}),
    ],
)
def test_no_network_costs_under_five_seconds(
    tmp_path: Path,
    target: Path,
    network: Callable[[], AbstractContextManager[str]],
    codes: set[str],
) -> None:
    assert Patience().answer_s + 0.5 < 5.0
    with network() as url:
        began_s = time.monotonic()
        fault = fault_of(preset(tmp_path, url), target, Patience())
        took_s = time.monotonic() - began_s
    assert fault.code in codes
    assert took_s < 5.0 + BUSY_S
