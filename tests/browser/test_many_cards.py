"""However many images there are, the page holds a few dozen cards, wherever one looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.fakes.core import FakeCore
from tests.shared import make_jpeg

pytestmark = pytest.mark.browser
JOBS = 3000
CARDS_MAX = 100
PAGE_OF_JOBS = 250
LATER = 24
# Where the cards are, and whether those that are seen stand without a hole.
LOOK = """() => {
    const cards = [...document.querySelectorAll(".card")];
    const boxes = cards.map((card) => card.getBoundingClientRect());
    const seen = boxes.filter((box) => box.bottom > 0 && box.top < innerHeight);
    return {
        cards: cards.length,
        heights: new Set(boxes.map((box) => Math.round(box.height))).size,
        seen: seen.length,
        top: Math.min(...seen.map((box) => box.top)),
        bottom: Math.max(...seen.map((box) => box.bottom)),
    };
}"""

# Resolves when nothing that ends by itself moves any more.
REST = """() => Promise.allSettled(document.getAnimations()
    .filter((one) => one.effect.getComputedTiming().endTime < Infinity)
    .map((one) => one.finished)).then(() => null)"""


def upload(url: str, count: int, prefix: str = "photo") -> None:
    """`count` images through the API, many in a request."""
    body = make_jpeg(1, (16, 12))
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for begin in range(0, count, PAGE_OF_JOBS):
            files = [
                ("image", (f"{prefix}-{number:04d}.jpg", body, "image/jpeg"))
                for number in range(begin, min(count, begin + PAGE_OF_JOBS))
            ]
            assert client.post("/api/v1/jobs", files=files).status_code == 202


def look(page: Page) -> dict[str, Any]:
    """What is seen, after the page has drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    return dict(page.evaluate(LOOK))


def scroll_to(page: Page, where: str) -> None:
    page.evaluate(f"() => scrollTo({{top: {where}, behavior: 'instant'}})")


@pytest.fixture
def full_page(core: FakeCore, cluster_url: str, open_page: Callable[..., Page]) -> Page:
    core.behaviour.workers = 0
    upload(cluster_url, JOBS)
    return open_page()


def test_scrolling_to_the_end_and_back_keeps_few_cards(full_page: Page) -> None:
    page = full_page
    newest = page.locator(f".card .label:has-text('photo-{JOBS - 1:04d}.jpg')")
    oldest = page.locator(".card .label:has-text('photo-0000.jpg')")
    expect(newest).to_be_visible()
    most = 0
    for _ in range(400):
        page.mouse.wheel(0, 20_000)
        now = look(page)
        most = max(most, now["cards"])
        assert now["heights"] == 1
        if oldest.count():
            break
    scroll_to(page, "document.body.scrollHeight")
    expect(oldest).to_be_visible()
    assert most <= CARDS_MAX
    assert newest.count() == 0
    scroll_to(page, "document.body.scrollHeight / 2")
    middle = look(page)
    assert middle["cards"] <= CARDS_MAX
    assert middle["seen"] > 0
    assert middle["top"] <= 60
    assert middle["bottom"] >= 800 - 60
    scroll_to(page, "0")
    expect(newest).to_be_visible()
    assert look(page)["cards"] <= CARDS_MAX


def test_what_is_looked_at_stays_when_others_come_in_above(
    full_page: Page, cluster_url: str
) -> None:
    page = full_page
    # What stands above the cards is complete and at rest: it would push them.
    expect(page.locator(f".card .label:has-text('photo-{JOBS - 1:04d}.jpg')")).to_be_visible()
    expect(page.locator(".chip:has-text('All')")).to_contain_text(f"{JOBS:,}")
    expect(page.locator("#model-line")).to_be_visible()
    expect(page.locator("#empty-join")).to_be_visible()
    page.evaluate(REST)
    scroll_to(page, "6000")
    page.wait_for_function("() => scrollY === 6000")
    look(page)
    place = """(name) => {
        const cards = [...document.querySelectorAll(".card")];
        const card = cards.find((one) => name === "" ? one.getBoundingClientRect().top >= 0
            : one.textContent.includes(name));
        const box = card.getBoundingClientRect();
        return [card.querySelector(".label").textContent, box.top, card.ariaPosInSet];
    }"""
    name, top, number = page.evaluate(place, "")
    # One at a time, each drawn before the next: what a single one moves must not add up.
    for more in range(1, LATER + 1):
        upload(cluster_url, 1, f"later-{more}")
        page.wait_for_function(
            "([name, position]) => [...document.querySelectorAll('.card')]"
            ".some((card) => card.textContent.includes(name) && card.ariaPosInSet === position)",
            arg=[name, str(int(number) + more)],
        )
    expect(page.locator(".chip:has-text('All')")).to_contain_text(f"{JOBS + LATER:,}")
    assert page.evaluate(place, name)[1] == pytest.approx(top, abs=2)


def test_the_keyboard_walks_through_cards_that_were_not_there(full_page: Page) -> None:
    page = full_page
    page.focus(".card .open")
    names = []
    for _ in range(240):
        names.append(page.evaluate("() => document.activeElement.ariaLabel ?? ''"))
        page.keyboard.press("Tab")
    walked = [name.split(":")[0] for name in names if name.startswith("photo-")]
    assert walked == [f"photo-{JOBS - 1 - number:04d}.jpg" for number in range(len(walked))]
    assert len(walked) >= 120
    assert look(page)["cards"] <= CARDS_MAX
