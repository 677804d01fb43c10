"""`GET /api/v1/classify?url=` answers within its deadline, whatever the other ends do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.fakes.core import FakeCore
from tests.unit.webui.conftest import Web, picture

TIMEOUT_S = 1.5
# What the machine may add; the deadline itself has a margin for writing the answer.
SLACK_S = 1.0


class Site(BaseHTTPRequestHandler):
    """An image at /photo.jpg; at /drip a body that never ends; at /round a slow circle."""

    over = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/round":
            self.over.wait(0.3)
            self.send_response(302)
            self.send_header("Location", "/round")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.end_headers()
        self.wfile.write(picture(1))
        while self.path == "/drip" and not self.over.wait(0.05):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    Site.over.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    Site.over.set()
    server.shutdown()
    server.server_close()


def classify(client: httpx.Client, url: str) -> tuple[int, str]:
    """Status and problem code (or the job's state), after at most the deadline."""
    began = time.monotonic()
    answer = client.get("/api/v1/classify", params={"url": url, "timeout": str(TIMEOUT_S)})
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    body = answer.json()
    return answer.status_code, str(body.get("code") or body["state"])


@pytest.mark.parametrize("path", ["drip", "round"])
def test_a_site_that_never_comes_to_an_end(path: str, site: str, client: httpx.Client) -> None:
    assert classify(client, f"{site}/{path}") == (504, "url_timeout")


def test_a_site_that_accepts_and_says_nothing(client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/photo.jpg"
        assert classify(client, url) == (504, "url_timeout")


def test_no_worker_takes_the_job(site: str, client: httpx.Client, core: FakeCore) -> None:
    core.behaviour.workers = 0
    assert classify(client, f"{site}/photo.jpg") == (202, "queued")


def test_a_worker_is_slower_than_the_deadline(
    site: str, client: httpx.Client, core: FakeCore
) -> None:
    core.behaviour.job_s = 10.0
    assert classify(client, f"{site}/photo.jpg") == (202, "leased")


def test_a_core_that_says_nothing(site: str, client: httpx.Client, core: FakeCore) -> None:
    core.behaviour.silent = {"Submit"}
    status, _ = classify(client, f"{site}/photo.jpg")
    assert status in {503, 504}


def test_a_core_that_falls_silent_during_the_wait(
    site: str, client: httpx.Client, core: FakeCore
) -> None:
    core.behaviour.workers = 0
    core.behaviour.silent = {"WaitJobs"}
    assert classify(client, f"{site}/photo.jpg") == (202, "queued")


def test_a_core_that_is_gone(site: str, web: Web, core: FakeCore, client: httpx.Client) -> None:
    core.hang_up()
    try:
        status, code = classify(client, f"{site}/photo.jpg")
    finally:
        core.listen()
    assert (status, code) in {(503, "core_unavailable"), (504, "url_timeout")}
