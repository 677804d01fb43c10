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
