"""The command in a process of its own: what it prints, where, and its exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from client.flags import EPILOG
from tests.shared import REPOSITORY
from tests.unit.client import server as acts
from tests.unit.client.server import Server

CLASSIFY = [sys.executable, "-m", "client"]


def environment(server: Server) -> dict[str, str]:
    """A script's environment that names the server."""
    return {**os.environ, "LOOKOUT_URL": server.url, "NO_PROXY": "127.0.0.1", "COLUMNS": "100"}


def run(
    server: Server, *arguments: str | Path, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """`classify` to its end."""
    return subprocess.run(
        [*CLASSIFY, *map(str, arguments)],
        env=environment(server),
        cwd=REPOSITORY,
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "=c.jpg"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_table_for_people(server: Server, photos: Path) -> None:
    done = run(server, photos / "a.jpg", photos / "b.jpg", "--in-order", "--top", "2")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [
        f"{'sure':>8}  {'label':28}  image",
        f"  50.0 %  {'=red fox':28}  {photos}/a.jpg",
        "  25.0 %  kit fox",
        f"  50.0 %  {'=red fox':28}  {photos}/b.jpg",
        "  25.0 %  kit fox",
    ]
    assert re.fullmatch(
        rb"classify: 2 classified, 0 failed in [\d.]+ s \([\d.]+/s\)\n", done.stderr
    )


def test_json_lines(server: Server, photos: Path) -> None:
    server.plan.append(acts.in_state("failed"))
    done = run(server, photos, "--json", "--concurrency", "1")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and len(lines) == 3
    assert lines[0]["error"]["code"] == "poison" and lines[0]["state"] == "failed"
    assert lines[0]["top"] == [] and lines[0]["job"] == "j1"
    assert lines[1]["error"] is None and lines[1]["top"] == acts.TOP5


def test_csv_has_no_formulas(server: Server, photos: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*CLASSIFY, "=c.jpg", "--csv", "--quiet", "--top", "2"],
        env={**environment(server), "PYTHONPATH": str(REPOSITORY)},
        cwd=photos,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == b""
    header, row = csv.reader(io.StringIO(done.stdout.decode(), newline=""))
    assert len(header) == len(row) == 13
    assert row[:5] == ["'=c.jpg", "succeeded", "'=red fox", "0", "0.5"]
    assert header[5:8] == ["label_2", "class_id_2", "confidence_2"]
    assert done.stdout.count(b"\r\n") == 2 and b"\r\r" not in done.stdout


def test_an_image_on_stdin(server: Server) -> None:
    done = run(server, "-", "--json", stdin=b"bytes of an image")
    assert done.returncode == 0
    assert json.loads(done.stdout)["image"] == "stdin"
    assert server.seen[0].body == b"bytes of an image"


def test_control_characters_do_not_reach_the_terminal(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31mred\x07\u202e.jpg"
    path.write_bytes(b"x")
    done = run(server, path)
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout and b"\x07" not in done.stdout
    assert "\u202e" not in done.stdout.decode()
    assert "\ufffd[31mred" in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required"),
        (["-", "-"], "stdin holds one image"),
        (["x.jpg", "--concurrency", "many"], "'many': give a whole number from 1 to 256"),
        (["x.jpg", "--concurrency", "257"], "257: give a whole number from 1 to 256"),
        (["x.jpg", "--top", "6"], "from 1 to 5"),
        (["x.jpg", "--deadline", "-3"], "give seconds above 0"),
        (["x.jpg", "--patience", "nan"], "give seconds above 0"),
        (["x.jpg", "--json", "--csv"], "not allowed with"),
        (["x.jpg", "--server", "master"], "'master' is no http URL"),
        (["docs/img", "--serv", "http://x"], "unrecognized"),
        (["wire"], "no image in wire"),
    ],
)
def test_wrong_usage(server: Server, arguments: list[str], said: str) -> None:
    done = run(server, *arguments)
    assert done.returncode == 2
    assert said in done.stderr.decode() and "Traceback" not in done.stderr.decode()
    assert done.stdout == b"" and server.seen == []


def test_no_server(server: Server, photos: Path) -> None:
    server.plan.extend([acts.drop] * 1000)
    done = run(server, photos, "--patience", "0.3", "--concurrency", "1", "--json")
    assert done.returncode == 3
    assert server.url in done.stderr.decode() and "0 classified, 1 failed" in done.stderr.decode()
    assert [json.loads(line)["error"]["code"] for line in done.stdout.splitlines()] == [
        "unreachable"
    ]


def test_a_server_that_refuses(server: Server, photos: Path) -> None:
    server.plan.extend([acts.problem(403, "host_not_allowed")] * 10)
    done = run(server, photos, "--quiet")
    assert done.returncode == 3
    assert b"takes no images: it is host_not_allowed" in done.stderr


def test_a_deadline(server: Server, photos: Path) -> None:
    server.plan.extend([acts.problem(429, "queue_full", Retry_After="60")] * 10)
    done = run(server, photos, "--deadline", "5")
    assert done.returncode == 4
    assert b"5 s were allowed" in done.stderr and b"--deadline" in done.stderr


def test_an_interrupt_leaves_what_is_done(server: Server, photos: Path) -> None:
    gate = threading.Event()

    def held(handler: acts.Handler) -> None:
        gate.wait(20)

    server.plan.extend([acts.serve, held])
    running = subprocess.Popen(
        [*CLASSIFY, photos, "--json", "--concurrency", "1"],
        env=environment(server),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert running.stdout is not None
        first = json.loads(running.stdout.readline())
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=20)
    finally:
        gate.set()
        running.kill()
    assert first["state"] == "succeeded" and rest == b""
    assert running.returncode == 130
    assert b"interrupted: 1 classified, 0 failed" in said and b"Traceback" not in said


def test_nobody_reads(server: Server, photos: Path) -> None:
    images = [str(photos / "a.jpg")] * 2000
    running = subprocess.Popen(
        [*CLASSIFY, *images, "--json"],
        env=environment(server),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None and running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.wait(20) == 141
    assert running.stderr.read() == b""
    assert len(server.seen) < 2000


def test_a_full_disk_is_told(server: Server, photos: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*CLASSIFY, photos, "--csv"],
            env=environment(server),
            cwd=REPOSITORY,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert b"can't write the results: No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_terminal_shows_a_bar_and_every_row(server: Server, photos: Path) -> None:
    leader, follower = pty.openpty()
    running = subprocess.Popen(
        [*CLASSIFY, photos],
        env=environment(server),
        cwd=REPOSITORY,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = bytearray()
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the kernel's way to say that the last writer has gone
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert running.wait(20) == 0
    text = shown.decode()
    assert text.count("=red fox") == 3
    assert "classifying" in text and "3 classified" in text


def test_what_keeps_us_waiting_is_told_once(server: Server, photos: Path) -> None:
    server.plan.extend([acts.problem(503, "starting")] * 2)
    server.plan.extend([acts.accept_only, acts.in_state("queued")])
    done = run(server, photos / "a.jpg")
    assert done.returncode == 0
    said = done.stderr.decode().splitlines()
    assert len(said) == 3
    assert "starting" in said[0] and "trying again" in said[0]
    assert "j1 is queued" in said[1] and "worker" in said[1]


def test_help_tells_every_exit_status(server: Server) -> None:
    done = run(server, "--help")
    assert done.returncode == 0
    page = (REPOSITORY / "docs" / "client.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    assert documented == re.findall(r"(?:^|[ :])(\d+) (?=[a-z])", EPILOG)
    assert EPILOG.strip() in done.stdout.decode()
