"""A real browser on the page, and the cluster that it looks at.

`cluster_url` is what the tests drive: a web process in front of a fake core
here; a test module that wants the real cluster overrides that one fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests import shared
from tests.fakes.core import FakeCore
from tests.unit.webui.conftest import Web

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 20_000


CAMERA_FLAGS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    running = playwright.chromium.launch(executable_path=shared.need_chromium(), args=FLAGS)
    yield running
    running.close()


@pytest.fixture
def camera_browser(playwright: Playwright) -> Iterator[Browser]:
    """A browser of its own, with a camera that shows a test picture."""
    path = shared.need_chromium()
    running = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *CAMERA_FLAGS])
    yield running
    running.close()


@pytest.fixture
def core() -> Iterator[FakeCore]:
    with FakeCore() as running:
        yield running


@pytest.fixture
def web(core: FakeCore) -> Iterator[Web]:
    running = Web(core.address, core.token, {}, allow_private_urls=True)
    yield running
    running.stop()


@pytest.fixture
def cluster_url(web: Web) -> str:
    """Where the page is served."""
    return web.url


@pytest.fixture
def open_page(browser: Browser, cluster_url: str) -> Iterator[Callable[..., Page]]:
    """Factory of pages: `open_page("#/cluster", width=390)`; fails on any script error."""
    contexts = []
    errors: list[str] = []

    def open_one(place: str = "", width: int = 1280, height: int = 800, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda fault: errors.append(str(fault)))
        page.on("console", lambda said: errors.append(said.text) if is_fault(said.text) else None)
        page.goto(f"{cluster_url}/{place}")
        page.wait_for_selector("#link[data-state=live], #link[data-state=idle]")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert errors == []


def is_fault(text: str) -> bool:
    """Whether a console line is a fault of the page (a refused request isn't)."""
    return "Content Security Policy" in text or "Uncaught" in text


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    return open_page()


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[int], list[str]]:
    """Factory of image files: real JPEGs, each different."""

    def make(count: int) -> list[str]:
        paths = []
        for number in range(count):
            path = tmp_path / f"photo-{number:04d}.jpg"
            path.write_bytes(shared.make_jpeg(number, (96, 72)))
            paths.append(str(path))
        return paths

    return make
