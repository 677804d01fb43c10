"""axe-core finds nothing serious in any view or state, on a desk, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.fakes.core import FakeCore

pytestmark = pytest.mark.browser
OpenPage = Callable[..., Page]
SHAPES = {
    "desktop": {"width": 1280, "color_scheme": "light"},
    "phone": {"width": 390, "height": 844, "color_scheme": "light"},
    "dark": {"width": 1280, "color_scheme": "dark"},
}
GRAVE = {"serious", "critical"}
# Playwright's isolated world has eval; the page's own policy forbids it and is left as it is.
OPTIONS = {"resultTypes": ["violations"]}


def grave(page: Page) -> list[str]:
    """What axe finds that keeps somebody out, with the first place of each."""
    found = Axe().run(page, options=OPTIONS).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {one['nodes'][0]['html']}"
        for one in found
        if one["impact"] in GRAVE
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_keeps_anybody_out(
    shape: str,
    open_page: OpenPage,
    core: FakeCore,
    photos: Callable[[int], list[str]],
    tmp_path: Path,
) -> None:
    """One page goes through all its states, so that each shape needs one browser context."""
    core.behaviour.workers = 0
    core.behaviour.warning = "This is the bundled checkpoint."
    page = open_page(**SHAPES[shape])
    expect(page.locator("#empty-join")).to_contain_text("No worker has joined yet")
    found = {"empty": grave(page)}
    page.click("[data-view=cluster]")
    found["cluster without workers"] = grave(page)
    page.click("[data-view=classify]")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"this is text")
    page.set_input_files("#file-input", [*photos(5), str(broken)])
    expect(page.locator(".card[data-state=queued]")).to_have_count(6)
    found["busy"] = grave(page)
    core.behaviour.workers = 2
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(5)
    expect(page.locator(".card[data-state=failed]")).to_have_count(1)
    found["failed one"] = grave(page)
    page.focus(".card .open")
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()
    found["details"] = grave(page)
    page.keyboard.press("Escape")
    page.click("#clear")
    expect(page.locator("#confirm")).to_be_visible()
    found["question"] = grave(page)
    page.keyboard.press("Escape")
    for view in ("cluster", "code"):
        page.click(f"[data-view={view}]")
        expect(page.locator(f"#view-{view}")).to_be_visible()
        found[view] = grave(page)
    core.hang_up()
    expect(page.locator("#notices")).to_contain_text("The scheduler is away")
    found["failing"] = grave(page)
    core.listen()
    assert {state: faults for state, faults in found.items() if faults} == {}
