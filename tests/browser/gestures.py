"""What a hand does that Playwright has no call for: files dropped and pasted."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import JSHandle, Page

TRANSFER = """(files) => {
    const transfer = new DataTransfer();
    for (const [name, data] of files) {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        transfer.items.add(new File([bytes], name, {type: "image/jpeg"}));
    }
    return transfer;
}"""


def transfer_of(page: Page, paths: Sequence[str]) -> JSHandle:
    """A `DataTransfer` that holds these files."""
    files = [[Path(p).name, base64.b64encode(Path(p).read_bytes()).decode()] for p in paths]
    return page.evaluate_handle(TRANSFER, files)


def drop_files(page: Page, paths: Sequence[str], target: str = "body") -> None:
    """Drag files over the page and let them go."""
    transfer = transfer_of(page, paths)
    page.dispatch_event(target, "dragenter", {"dataTransfer": transfer})
    page.dispatch_event(target, "drop", {"dataTransfer": transfer})


def paste_files(page: Page, paths: Sequence[str]) -> None:
    """Paste files anywhere."""
    transfer_of(page, paths).evaluate(
        """(transfer) => document.dispatchEvent(
            new ClipboardEvent("paste", {clipboardData: transfer}))"""
    )


def drop_path(page: Page, path: Path) -> None:
    """Drag a file or a folder from the desk over the page and let it go, by the browser itself."""
    browser = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})


def drop_address(page: Page, url: str) -> None:
    """Drag an image's address over the page and let it go."""
    transfer = page.evaluate_handle(
        """(url) => {
            const transfer = new DataTransfer();
            transfer.setData("text/uri-list", url);
            return transfer;
        }""",
        url,
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def paste_text(page: Page, text: str) -> None:
    """Paste text while no field has the focus."""
    page.evaluate(
        """(text) => {
            const transfer = new DataTransfer();
            transfer.setData("text/plain", text);
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer}));
        }""",
        text,
    )
