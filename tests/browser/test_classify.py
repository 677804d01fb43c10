"""What a person does with images on the page, in a real browser."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from tests.fakes.core import FakeCore
from wire import messages

Photos = Callable[[int], list[str]]


def choose(page: Page, paths: list[str]) -> None:
    page.set_input_files("#file-input", paths)


def test_the_first_sight_says_what_to_do(page: Page) -> None:
    expect(page.locator(".drop-title .for-mouse")).to_have_text("Drop images anywhere on this page")
    expect(page.locator(".drop-title .for-touch")).to_be_hidden()
    expect(page.locator("#model-line")).to_contain_text("knows 28 classes")
    expect(page.locator("#link-text")).to_have_text("2 workers ready")
    expect(page.locator("#toolbar")).to_be_hidden()


def test_a_phone_is_not_told_to_drop(open_page: Callable[..., Page]) -> None:
    page = open_page(width=390, height=844, is_mobile=True, has_touch=True)
    expect(page.locator(".drop-title .for-touch")).to_be_visible()
    expect(page.locator(".drop-title .for-mouse")).to_be_hidden()


def test_files_are_classified_without_reloading(page: Page, photos: Photos) -> None:
    choose(page, photos(8))
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(8)
    first = page.locator(".card").first
    expect(first.locator(".label .percent")).to_contain_text("%")
    expect(first.locator(".bars li")).to_have_count(5)
    expect(first.locator(".meta")).to_contain_text("worker-")
    expect(page.locator(".upload .what")).to_have_text("8 of 8 images")
    page.wait_for_selector(".card img")
    loaded = page.locator(".card img").first.evaluate("image => image.decode().then(() => true)")
    assert loaded is True


def test_bad_files_fail_alone_and_say_why(page: Page, photos: Photos, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"this is text")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    notes = tmp_path / "notes.txt"
    notes.write_text("no image")
    choose(page, [*photos(3), str(broken), str(empty), str(notes)])
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(3)
    expect(page.locator(".card[data-state=failed] .error")).to_contain_text("isn't an image")
    row = page.locator(".upload")
    expect(row).to_contain_text("1 file left out, not images")
    expect(row).to_contain_text("empty.png (empty file)")


def test_files_can_be_dropped_anywhere(page: Page, photos: Photos) -> None:
    data = base64.b64encode(Path(photos(1)[0]).read_bytes()).decode()
    transfer = page.evaluate_handle(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "dropped.jpg", {type: "image/jpeg"}));
            return transfer;
        }""",
        data,
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#veil")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator("#veil")).to_be_hidden()
    expect(page.locator(".card .name")).to_have_text("dropped.jpg")


def test_an_image_can_be_pasted(page: Page, photos: Photos) -> None:
    data = base64.b64encode(Path(photos(1)[0]).read_bytes()).decode()
    page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "pasted.jpg", {type: "image/jpeg"}));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer}));
        }""",
        data,
    )
    expect(page.locator(".card .name")).to_have_text("pasted.jpg")


def test_a_folder_is_walked(page: Page, photos: Photos, tmp_path: Path) -> None:
    photos(3)
    page.set_input_files("#folder-input", str(tmp_path))
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(3)
    expect(page.locator(".card .name").first).to_contain_text("/photo-")


def test_a_bad_url_is_told(page: Page) -> None:
    page.fill("#url", "http://[::1]:1/none.jpg")
    page.press("#url", "Enter")
    expect(page.locator(".notice.bad")).to_be_visible()


def test_filter_and_search(page: Page, photos: Photos, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"this is text")
    choose(page, [*photos(4), str(broken)])
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(4)
    page.click(".chip:has-text('Failed')")
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("#export-csv")).to_have_attribute(
        "href", "/api/v1/results.csv?state=failed"
    )
    page.click(".chip:has-text('Cancelled')")
    expect(page.locator("#empty")).to_contain_text("No image is in this state")
    page.click(".chip:has-text('All')")
    page.fill("#search", "photo-0002")
    expect(page.locator(".card")).to_have_count(1)
    page.fill("#search", "nothing like this")
    expect(page.locator("#empty")).to_contain_text("nothing like this")


def test_details_show_the_whole_and_close_by_keyboard(page: Page, photos: Photos) -> None:
    choose(page, photos(1))
    page.wait_for_selector(".card[data-state=succeeded]")
    page.focus(".card .open")
    page.keyboard.press("Enter")
    dialog = page.locator("#details")
    expect(dialog).to_be_visible()
    expect(dialog.locator(".bars li")).to_have_count(5)
    expect(dialog).to_contain_text("photo-0000.jpg")
    expect(dialog).to_contain_text("Inference")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_cancel_retry_remove_clear(page: Page, core: FakeCore, photos: Photos) -> None:
    core.behaviour.workers = 0
    choose(page, photos(2))
    expect(page.locator(".card[data-state=queued]")).to_have_count(2)
    page.locator(".card").first.hover()
    page.click(".card:first-child [aria-label^=Cancel]")
    expect(page.locator(".card[data-state=cancelled]")).to_have_count(1)
    core.behaviour.workers = 1
    page.locator(".card[data-state=cancelled]").hover()
    page.click(".card[data-state=cancelled] [aria-label$=again]")
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(2)
    page.locator(".card").first.hover()
    page.click(".card:first-child [aria-label^=Remove]")
    expect(page.locator(".card")).to_have_count(1)
    page.click("#clear")
    page.click("#confirm .danger")
    expect(page.locator(".card")).to_have_count(0)
    assert core.jobs == {}


def test_failed_ones_are_tried_again_together(page: Page, core: FakeCore, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"text")
    choose(page, [str(path) for path in sorted(tmp_path.glob("*.jpg"))])
    expect(page.locator(".card[data-state=failed]")).to_have_count(3)
    before = set(core.jobs)
    page.click("#retry-failed")
    expect(page.locator(".card[data-state=failed]")).to_have_count(3)
    core.wait_for(lambda: not before & set(core.jobs))


def test_names_are_text_and_never_markup(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    path.write_bytes(b"text")
    choose(page, [str(path)])
    expect(page.locator(".card .name")).to_have_text("<img src=x onerror=alert(1)>.jpg")


def test_a_full_queue_is_waited_out(page: Page, core: FakeCore, photos: Photos) -> None:
    core.behaviour.refuse["Submit"] = messages.Refused(
        request=0, code="queue_full", message="full", retry_after_s=1.0
    )
    choose(page, photos(3))
    expect(page.locator(".upload .how").first).to_contain_text("The queue is full")
    core.behaviour.refuse.clear()
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(3)
    expect(page.locator(".upload .what")).to_have_text("3 of 3 images")


def test_a_core_that_restarts_is_survived(page: Page, core: FakeCore, photos: Photos) -> None:
    core.behaviour.job_s = 0.1
    choose(page, photos(40))
    expect(page.locator(".card[data-state=succeeded]").first).to_be_visible()
    core.hang_up()
    expect(page.locator("#notices")).to_contain_text("The scheduler is away")
    core.listen()
    expect(page.locator("#notices")).not_to_contain_text("The scheduler is away")
    expect(page.locator(".upload .what")).to_have_text("40 of 40 images")
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(40)


def test_what_was_missed_is_read_until_it_can_be(
    page: Page, core: FakeCore, photos: Photos
) -> None:
    """Jobs end while nobody listens, and the first tries to read them again fail."""
    core.behaviour.job_s = 0.1
    choose(page, photos(40))
    expect(page.locator(".card[data-state=succeeded]").first).to_be_visible()
    core.wait_for(lambda: len(core.jobs) == 40)
    core.hang_up()
    expect(page.locator("#link")).to_have_attribute("data-state", "down")
    core.wait_for(lambda: all(job.state == "succeeded" for job in core.jobs.values()))
    core.behaviour.forgetful = True
    for call in ("ListJobs", "GetJobs"):
        core.behaviour.refuse[call] = messages.Refused(
            request=0, code="starting", message="reads its job table"
        )
    core.seen.clear()
    core.listen()
    core.wait_for(lambda: sum(isinstance(m, messages.ListJobs) for m in core.seen) >= 1)
    core.behaviour.refuse.clear()
    expect(page.locator(".upload .what")).to_have_text("40 of 40 images")
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(40)


def test_a_list_read_before_an_upload_does_not_undo_it(
    page: Page, core: FakeCore, photos: Photos
) -> None:
    held: list[tuple[Route, APIResponse]] = []
    first, *others = photos(4)
    choose(page, [first])
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(1)
    page.route("**/api/v1/jobs?limit=200", lambda route: held.append((route, route.fetch())))
    core.behaviour.forgetful = True
    with page.expect_request("**/api/v1/jobs?limit=200"):
        core.hang_up()
        core.listen()
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    choose(page, others)
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(4)
    ((route, answer),) = held
    assert len(answer.json()["jobs"]) == 1
    with page.expect_response("**/api/v1/jobs?limit=200"):
        route.fulfill(response=answer)
    page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 200))")
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(4)


@pytest.mark.timeout(240)
def test_2000_images_keep_the_page_responsive(page: Page, core: FakeCore, photos: Photos) -> None:
    core.behaviour.job_s = 0.004
    choose(page, photos(2000))
    # The page answers while it uploads: a click is carried out within half a second.
    slowest_ms = page.evaluate(
        """async () => {
            let slowest = 0;
            const until = performance.now() + 6000;
            while (performance.now() < until) {
                const began = performance.now();
                await new Promise((resolve) => setTimeout(resolve, 50));
                slowest = Math.max(slowest, performance.now() - began - 50);
            }
            return slowest;
        }"""
    )
    assert slowest_ms < 500
    expect(page.locator(".upload .what")).to_have_text("2,000 of 2,000 images", timeout=180_000)
    assert page.locator(".card").count() <= 300
    page.mouse.wheel(0, 4000)
    assert len(core.jobs) == 2000


def test_the_page_is_told_to_screen_readers(page: Page, photos: Photos) -> None:
    choose(page, photos(3))
    expect(page.locator("#live")).to_have_text("3 of 3 images classified")
    label = page.locator(".card .open").first.get_attribute("aria-label")
    assert label is not None
    assert "%" in label
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, a, input")]
            .filter((e) => !e.hidden && e.type !== "file")
            .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length))
            .map((e) => e.outerHTML)"""
    )
    assert json.dumps(nameless) == "[]"
