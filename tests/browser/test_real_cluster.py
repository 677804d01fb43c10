"""The page in front of the real cluster: real workers, real photographs, real deaths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.fakes.cluster import Cluster

READY_MS = 60_000


@pytest.fixture
def real(cluster: Callable[..., Cluster]) -> Iterator[Cluster]:
    yield cluster(workers=2)


@pytest.fixture
def cluster_url(real: Cluster) -> str:
    return real.url


@pytest.fixture
def ready_page(open_page: Callable[..., Page]) -> Page:
    page = open_page()
    expect(page.locator("#link-text")).to_have_text("2 workers ready", timeout=READY_MS)
    return page


def some(photographs: Path, count: int) -> list[str]:
    return [str(path) for path in sorted(photographs.glob("*.JPEG"))[:count]]


def test_photographs_get_their_labels(ready_page: Page, imagenet100: Path) -> None:
    page = ready_page
    robin = imagenet100 / "n01558993_robin.JPEG"
    page.set_input_files("#file-input", [str(robin), *some(imagenet100, 12)])
    expect(page.locator(".card[data-state=succeeded]")).to_have_count(13, timeout=READY_MS)
    page.fill("#search", "n01558993_robin")
    expect(page.locator(".card .label").first).to_contain_text("robin")


def test_a_worker_that_dies_under_work_costs_nothing(
    ready_page: Page, real: Cluster, imagenet100: Path
) -> None:
    page = ready_page
    page.set_input_files("#file-input", some(imagenet100, 60))
    expect(page.locator(".card[data-state=leased]").first).to_be_attached()
    real.workers["w1"].kill9()
    expect(page.locator(".upload .what")).to_have_text("60 of 60 images", timeout=READY_MS)
    page.click("[data-view=cluster]")
    expect(page.locator(".worker:has-text('w2') .tag")).to_have_text("alive")


def test_a_core_that_dies_under_work_costs_nothing(
    ready_page: Page, real: Cluster, imagenet100: Path
) -> None:
    page = ready_page
    page.set_input_files("#file-input", some(imagenet100, 60))
    expect(page.locator(".card[data-state=succeeded]").first).to_be_attached()
    real.kill_core()
    expect(page.locator("#link")).to_have_attribute("data-state", "down")
    real.restart_core()
    expect(page.locator(".upload .what")).to_have_text("60 of 60 images", timeout=READY_MS)
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
