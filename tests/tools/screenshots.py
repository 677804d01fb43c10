"""Take the pictures of the README, and the ones to look at before a release.

    python -m tests.tools.screenshots IMAGES OUT

IMAGES is a folder of photographs that may be published; OUT gets a PNG for each view. A real
cluster serves them, with the ImageNet weights of the shared data.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, TimeoutError, expect, sync_playwright

from tests.browser.conftest import FLAGS
from tests.fakes.cluster import Cluster
from tests.shared import make_jpeg, need_chromium

READY_MS = 60_000
PICTURES_MS = 5_000
BUSY = 400
WORKERS = ("atlas", "borealis", "cygnus")
DESKTOP = {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"}
DARK = {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "color_scheme": "light",
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


def shoot(images: Path, out: Path, lookout: Cluster, browser: Browser, scratch: Path) -> None:
    """Every view and state, in the order in which they come about."""

    def page_of(shape: dict[str, object], place: str = "") -> Page:
        page = browser.new_context(**shape).new_page()  # type: ignore[arg-type]
        page.goto(f"{lookout.url}/{place}")
        page.wait_for_selector("#link[data-state=live]", timeout=READY_MS)
        return page

    def save(page: Page, name: str) -> None:
        # Those below the window load when somebody scrolls to them, so only these are waited for;
        # and not for long: on a busy page new cards come in faster than their pictures.
        with contextlib.suppress(TimeoutError):
            page.wait_for_function(
                """() => [...document.images].every((image) => image.complete
                    || image.getBoundingClientRect().top > innerHeight)""",
                timeout=PICTURES_MS,
            )
        page.screenshot(path=out / f"{name}.png", animations="disabled")

    desktop, dark, phone = page_of(DESKTOP), page_of(DARK), page_of(PHONE)
    save(desktop, "empty")
    save(phone, "empty-phone")
    # The last one is the first on the page.
    photographs = sorted((str(path) for path in images.iterdir()), reverse=True)
    desktop.set_input_files("#file-input", photographs)
    expect(desktop.locator(".card[data-state=succeeded]")).to_have_count(
        len(photographs), timeout=READY_MS
    )
    for page, name in ((desktop, "classify"), (dark, "classify-dark"), (phone, "classify-phone")):
        save(page, name)
    desktop.click(".card .open")
    save(desktop, "details")
    desktop.keyboard.press("Escape")
    files = []
    for number in range(BUSY):
        path = scratch / f"shape-{number:03d}.jpg"
        path.write_bytes(b"no image" if number % 40 == 7 else make_jpeg(number, (640, 480)))
        files.append(str(path))
    cluster, cluster_phone = page_of(DARK, "#/cluster"), page_of(PHONE, "#/cluster")
    desktop.set_input_files("#file-input", files)
    desktop.wait_for_selector(".card[data-state=leased]")
    save(desktop, "busy")
    lookout.workers[WORKERS[-1]].kill9()
    expect(desktop.locator(".upload button").first).to_have_text("Dismiss", timeout=READY_MS)
    save(cluster, "cluster")
    save(cluster_phone, "cluster-phone")
    desktop.click(".chip:has-text('Failed')")
    save(desktop, "failed")
    code = page_of(DESKTOP, "#/code")
    save(code, "code")
    lookout.kill_core()
    desktop.wait_for_selector("#link[data-state=down]")
    save(desktop, "failing")


def main() -> None:
    """Start everything, take the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder), workers=0) as lookout,
        sync_playwright() as playwright,
    ):
        for name in WORKERS:
            lookout.start_worker(name)
        lookout.wait_ready(len(WORKERS))
        browser = playwright.chromium.launch(executable_path=need_chromium(), args=FLAGS)
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        shoot(options.images, options.out, lookout, browser, scratch)
        browser.close()


if __name__ == "__main__":
    main()
