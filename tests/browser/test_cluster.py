"""The cluster view, the code panel, and the page in other sizes and states."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.fakes.core import FakeCore
from tests.unit.webui.conftest import Web

OpenPage = Callable[..., Page]


def test_workers_are_shown_and_drained(open_page: OpenPage, core: FakeCore) -> None:
    page = open_page("#/cluster")
    expect(page.locator(".worker")).to_have_count(2)
    first = page.locator(".worker").first
    expect(first).to_contain_text("worker-1")
    expect(first).to_contain_text("suspicion")
    expect(first.locator(".tag")).to_have_text("alive")
    first.locator("button").click()
    expect(first.locator(".tag")).to_have_text("draining")
    assert core.drained == {"worker-1"}


def test_figures_and_plots_are_live(
    open_page: OpenPage, photos: Callable[[int], list[str]]
) -> None:
    page = open_page("#/cluster")
    expect(page.locator(".tile")).to_have_count(4)
    expect(page.locator(".tile polyline").first).to_be_attached()
    page.set_input_files("#file-input", photos(12))
    expect(page.locator(".tile:nth-child(2) .value")).not_to_have_text(re.compile(r"^0images/s"))
    painted = page.locator("#timeline").evaluate(
        """(canvas) => {
            const {width, height} = canvas;
            const bytes = canvas.getContext("2d").getImageData(0, 0, width, height).data;
            return new Set(new Uint32Array(bytes.buffer)).size;
        }"""
    )
    assert painted > 3


def test_without_workers_the_page_says_how_to_join_one(open_page: OpenPage, core: FakeCore) -> None:
    core.behaviour.workers = 0
    page = open_page()
    expect(page.locator("#empty-join")).to_contain_text("No worker has joined yet")
    expect(page.locator("#empty-join code").first).to_have_text(
        "worker join 127.0.0.1 --token TOKEN"
    )
    core.behaviour.workers = 1
    expect(page.locator("#empty-join")).to_be_hidden()


def test_a_warning_of_the_model_is_shown(open_page: OpenPage, core: FakeCore) -> None:
    core.behaviour.warning = f"This is the bundled checkpoint. {'It says what to do. ' * 12}"
    page = open_page()
    notice = page.locator("#notices .notice")
    expect(notice).to_contain_text("bundled checkpoint")
    expect(notice.get_by_text("It says what to do")).to_be_hidden()
    notice.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(notice.get_by_text("It says what to do")).to_be_visible()
    waiting = page.locator("#link-text")
    core.behaviour.workers += 1
    expect(waiting).to_have_text(f"{core.behaviour.workers} workers ready")
    expect(notice.get_by_text("It says what to do"), "what is drawn anew").to_be_visible()


def test_the_python_of_the_code_panel_runs_as_it_stands(
    open_page: OpenPage, photos: Callable[[int], list[str]], tmp_path: Path
) -> None:
    page = open_page("#/code")
    texts = page.locator("#code pre").all_inner_texts()
    program = next(text for text in texts if text.startswith("import json"))
    script = tmp_path / "classify.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script), *photos(2)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count("%") == 2


def test_the_curl_of_the_code_panel_runs_as_it_stands(
    open_page: OpenPage, photos: Callable[[int], list[str]], tmp_path: Path
) -> None:
    (path,) = photos(1)
    Path(path).rename(tmp_path / "photo.jpg")
    command = open_page("#/code").locator("#code pre").first.inner_text()
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert '"state":"succeeded"' in done.stdout


def test_the_page_goes_on_when_the_server_is_back(
    browser: object, core: FakeCore, open_page: OpenPage, web: Web
) -> None:
    page = open_page()
    port = web.port
    web.stop()
    expect(page.locator("#notices")).to_contain_text("The server can't be reached")
    again = Web(core.address, core.token, {}, port=port)
    try:
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
        expect(page.locator("#notices")).not_to_contain_text("can't be reached")
    finally:
        again.stop()


@pytest.mark.parametrize("place", ["", "#/cluster", "#/code"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(
    place: str, width: int, open_page: OpenPage, photos: Callable[[int], list[str]]
) -> None:
    page = open_page(place, width=width)
    page.set_input_files("#file-input", photos(2))
    page.wait_for_selector(".card", state="attached")
    over = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert over <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str, open_page: OpenPage) -> None:
    """WCAG AA: 4.5 to 1 for the colours that text is written in."""
    page = open_page(color_scheme=scheme)
    ratios = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const canvas = document.createElement("canvas").getContext("2d");
            const light = (name) => {
                canvas.fillStyle = style.getPropertyValue(name).trim();
                const [r, g, b] = canvas.fillStyle.match(/[0-9a-f]{2}/gi).map((h) => {
                    const c = parseInt(h, 16) / 255;
                    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const pairs = [["--text", "--ground"], ["--text", "--surface"], ["--muted", "--ground"],
                ["--muted", "--surface"], ["--muted", "--sunken"], ["--bad", "--surface"],
                ["--bad", "--bad-soft"], ["--warn", "--warn-soft"], ["--on-accent", "--accent"],
                ["--accent-strong", "--accent-soft"], ["--accent-strong", "--surface"]];
            return pairs.map(([a, b]) => {
                const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
                return [a, b, (high + 0.05) / (low + 0.05)];
            });
        }"""
    )
    assert [entry for entry in ratios if entry[2] < 4.5] == []
