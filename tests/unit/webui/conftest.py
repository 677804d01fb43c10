"""A web process in front of a fake core, over real sockets."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.fakes.core import Behaviour, FakeCore

REPOSITORY = Path(__file__).resolve().parents[3]
STOP_S = 15
PROGRAM = """
import json, sys
from webui.config import Config, Limits
from webui.server import run
options = json.loads(sys.argv[1])
run(Config(limits=Limits(**options.pop("limits")), die_with_parent=True, **options))
"""


class Web:
    """One web parent process and the address it announced."""

    def __init__(self, core: str, token: str, limits: dict[str, Any], **options: Any) -> None:
        config = {"host": "127.0.0.1", "port": 0, "core": core, "token": token, "limits": limits}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps({**config, **options})],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        word, kind, fields = self.process.stdout.readline().split(" ", 2)
        assert (word, kind) == ("LOOKOUT", "web")
        self.address: str = json.loads(fields)["http"]
        self.url = f"http://{self.address}"

    @property
    def port(self) -> int:
        """The port that the kernel chose."""
        return int(self.address.rsplit(":", 1)[1])

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client of this web."""
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        finally:
            self.process.kill()


@pytest.fixture(scope="session")
def shared_core() -> Iterator[FakeCore]:
    with FakeCore() as core:
        yield core


@pytest.fixture(scope="session")
def shared_web(shared_core: FakeCore) -> Iterator[Web]:
    web = Web(shared_core.address, shared_core.token, {}, allow_private_urls=True)
    yield web
    web.stop()


@pytest.fixture
def core(shared_core: FakeCore) -> Iterator[FakeCore]:
    """The fake core that `web` serves, as new."""
    shared_core.reset()
    yield shared_core
    shared_core.reset()


@pytest.fixture
def web(core: FakeCore, shared_web: Web) -> Web:
    """A web process with the default limits."""
    return shared_web


@pytest.fixture
def client(web: Web) -> Iterator[httpx.Client]:
    with web.client() as opened:
        yield opened


@pytest.fixture
def start_web() -> Iterator[Callable[..., Web]]:
    """Factory of web processes with limits of their own: `start_web(core, body_idle_s=1)`."""
    started: list[Web] = []

    def start(core: FakeCore, options: dict[str, Any] | None = None, **limits: Any) -> Web:
        started.append(Web(core.address, core.token, limits, **(options or {})))
        return started[-1]

    yield start
    for web in started:
        web.stop()


@pytest.fixture
def own_core() -> Iterator[FakeCore]:
    """A fake core for tests that take it down."""
    with FakeCore(Behaviour()) as core:
        yield core


def picture(seed: int = 0, side_px: int = 32, kind: str = "JPEG") -> bytes:
    """A small real image; different for each seed."""
    image = Image.new("RGB", (side_px, side_px), (seed % 256, seed // 256 % 256, 90))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()
