"""The one configuration: where the token comes from, what follows from the flags."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wire.address import TcpAddress
from wire.errors import EnvironmentFault
from worker import cli, logs
from worker.config import WorkerConfig, build_config, default_cache
from worker.faults import Faults
from worker.naming import claim_name

Build = Callable[..., WorkerConfig]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build a configuration from a command line, in a home of its own."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)

    def make(*argv: str, **environment: str) -> WorkerConfig:
        given = ["join", *argv]
        flags: argparse.Namespace = cli._parser(given).parse_args(given)
        return build_config(flags, environment)

    return make


def leave_local_token(home: Path, text: str = "local\n") -> Path:
    path = home / ".local" / "share" / "lookout" / "token"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_port_and_address(build: Build) -> None:
    assert build("10.0.0.1").master == TcpAddress("10.0.0.1", 6550)
    assert build("host:99").master == TcpAddress("host", 99)
    assert build("[::1]:99").master == TcpAddress("::1", 99)


@pytest.mark.parametrize("address", ["", "host:port", "host:99999", "a b", "::1:99:"])
def test_a_wrong_address_is_explained(build: Build, address: str) -> None:
    with pytest.raises(EnvironmentFault, match="is no address"):
        build(address)


def test_token_from_flag_then_file_then_environment(build: Build, tmp_path: Path) -> None:
    file = tmp_path / "t"
    file.write_text("from-file\n", encoding="utf-8")
    assert build("h", "--token", "flag", LOOKOUT_TOKEN="env").token == "flag"
    assert build("h", "--token-file", str(file), LOOKOUT_TOKEN="env").token == "from-file"
    assert build("h", LOOKOUT_TOKEN=" env ").token == "env"
    assert build("h").token is None


def test_the_token_of_this_machines_master_only_on_loopback(build: Build, tmp_path: Path) -> None:
    path = leave_local_token(tmp_path)
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "[::1]", "unix:/run/lookout.sock"):
        config = build(host)
        assert (config.token, config.token_source) == ("local", str(path)), host
    assert build("10.0.0.1").token is None
    assert build("localhost", LOOKOUT_TOKEN="env").token == "env"


def test_a_token_that_is_missing_or_empty_is_explained(build: Build, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="nowhere"):
        build("h", "--token-file", str(tmp_path / "nowhere"))
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    with pytest.raises(EnvironmentFault, match="is empty"):
        build("h", "--token-file", str(tmp_path / "empty"))
    with pytest.raises(EnvironmentFault, match="is empty"):
        build("h", "--token", "")


def test_the_token_is_never_shown(build: Build) -> None:
    config = build("h", "--token", "s3cret")
    assert "s3cret" not in repr(config)
    assert "s3cret" not in str(config.shown())


def test_slots_cover_the_pipeline_and_the_round_trip(build: Build) -> None:
    config = build("h", "--threads", "4", "--batch", "4")
    assert config.decode_threads == 2
    assert config.executing_max == 2 + 2 * 4
    assert config.slots == config.executing_max + 2 * 4
    few = build("h", "--threads", "4", "--batch", "4", "--slots", "1")
    assert (few.slots, few.executing_max) == (1, 1)


def test_threads_default_to_the_cores_allowed(build: Build) -> None:
    assert build("h").threads == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    "argv",
    [
        ["--slots", "0"],
        ["--slots", "-1"],
        ["--slots", "many"],
        ["--slots", "5000"],
        ["--engine", "steam"],
        ["--name", ""],
        ["--name", "x" * 129],
        ["--name", "a\nb"],
        ["--drain-timeout", "-1"],
        ["--drain-timeout", "nan"],
        ["--token", "a", "--token-file", "b"],
        ["--unknown"],
    ],
)
def test_wrong_flags_end_with_code_2(
    build: Build, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        build("h", *argv)
    assert caught.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_fault_hooks_need_their_flag(build: Build) -> None:
    assert build("h").faults == Faults()
    text = "crash-on=sha256:ab12;hang-on=MARK;delay-ms=2.5"
    assert build("h", "--enable-fault-hooks", LOOKOUT_FAULTS=text).faults == Faults(
        crash_on="sha256:ab12", hang_on="MARK", delay_ms=2.5
    )
    with pytest.raises(EnvironmentFault, match="--enable-fault-hooks"):
        build("h", LOOKOUT_FAULTS=text)
    with pytest.raises(EnvironmentFault, match="--enable-fault-hooks"):
        build("h", "--engine", "null")
    with pytest.raises(EnvironmentFault, match="explode-on"):
        build("h", "--enable-fault-hooks", LOOKOUT_FAULTS="explode-on=x")
    with pytest.raises(EnvironmentFault, match="delay-ms"):
        build("h", "--enable-fault-hooks", LOOKOUT_FAULTS="delay-ms=soon")


def test_the_cache_follows_the_flag_then_xdg_then_home(build: Build, tmp_path: Path) -> None:
    assert build("h", "--cache", "/c").cache == Path("/c")
    assert build("h", XDG_CACHE_HOME="/x").cache == Path("/x/lookout")
    assert build("h").cache == tmp_path / ".cache" / "lookout"
    assert default_cache({"XDG_CACHE_HOME": ""}) == tmp_path / ".cache" / "lookout"


# --- names -------------------------------------------------------------------------------


def test_names_are_the_lowest_that_nobody_holds(tmp_path: Path) -> None:
    first, second = claim_name(tmp_path, "lab"), claim_name(tmp_path, "lab")
    assert (first.name, second.name) == ("lab-1", "lab-2")
    first.lock.close()
    assert claim_name(tmp_path, "lab").name == "lab-1", "a worker gets its old name back"
    assert claim_name(tmp_path / "other", "lab").name == "lab-1"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a/b c", "a-b-c-1"),
        ("ünïcode", "n-code-1"),
        ("..", "worker-1"),
        ("x" * 300, "x" * 100 + "-1"),
    ],
)
def test_odd_host_names_become_plain(tmp_path: Path, host: str, name: str) -> None:
    assert claim_name(tmp_path, host).name == name


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFault, match="--name"):
        claim_name(tmp_path / "file")


# --- logs --------------------------------------------------------------------------------


@pytest.fixture
def clean_logging() -> object:
    root = logging.getLogger("lookout")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before


def test_text_lines(clean_logging: object, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "text")
    log = logging.getLogger("lookout.worker")
    logs.event(log, logging.INFO, "joined", name="a b", job="j1", reason='say "x"\n', none=None)
    logs.event(log, logging.DEBUG, "hidden")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.split(" ", 3)[1:3] == ["info", "lookout.worker"]
    assert line.endswith('joined name="a b" job=j1 reason="say \\"x\\"\\n"\n')


def test_json_lines(clean_logging: object, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    logs.set_up("debug", "json")
    log = logging.getLogger("lookout.worker")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed")
    logs.event(log, logging.WARNING, "lost", path=Path("/x"), count=3)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["level"] == "error"
    assert "ValueError: bad" in first["traceback"]
    assert (second["event"], second["path"], second["count"]) == ("lost", "/x", 3)
    assert second["time"].endswith("Z")
