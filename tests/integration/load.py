"""Load and evidence for integration tests: many uploads, and what the job table says of them."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
WAIT_S = 60
ATTEMPT_COLUMNS = (
    "job",
    "token",
    "worker",
    "outcome",
    "granted_at",
    "started_at",
    "ended_at",
    "blamed",
    "error_code",
)


class Load:
    """Uploads images one by one over `concurrency` connections; remembers every answer.

    An answer is kept by image index. `errors` holds what a client would have
    seen as a failure: nothing is retried here.
    """

    def __init__(self, url: str, images: Sequence[bytes], concurrency: int) -> None:
        self.accepted: dict[int, str] = {}
        self.finished: dict[int, dict[str, Any]] = {}
        self.errors: list[str] = []
        self._url = url
        self._images = images
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._reached = threading.Condition(self._lock)

    def run(self, wait_s: int = WAIT_S) -> None:
        """Upload all; each request waits for its job's end, `wait_s` at most."""
        limits = httpx.Limits(max_connections=self._concurrency)
        with (
            httpx.Client(base_url=self._url, timeout=wait_s + 30, limits=limits) as http,
            ThreadPoolExecutor(self._concurrency) as pool,
        ):
            list(pool.map(lambda index: self._one(http, index, wait_s), range(len(self._images))))

    def start(self, wait_s: int = WAIT_S) -> threading.Thread:
        """`run` in a thread of its own."""
        thread = threading.Thread(target=self.run, args=(wait_s,))
        thread.start()
        return thread

    def wait_finished(self, count: int, timeout_s: float) -> None:
        """Until `count` answers with an outcome have come."""
        with self._reached:
            done = self._reached.wait_for(
                lambda: len(self.finished) >= count or bool(self.errors), timeout_s
            )
        assert done and not self.errors, (len(self.finished), self.errors[:3])

    def _one(self, http: httpx.Client, index: int, wait_s: int) -> None:
        try:
            answer = http.post(
                "/api/v1/jobs",
                content=self._images[index],
                headers={"Content-Type": "image/jpeg", "Prefer": f"wait={wait_s}"},
            )
            answer.raise_for_status()
            job = answer.json()["jobs"][0]
        except (httpx.HTTPError, KeyError) as error:
            with self._reached:
                self.errors.append(f"image {index}: {error!r}")
                self._reached.notify_all()
            return
        with self._reached:
            self.accepted[index] = job["id"]
            if job["state"] in TERMINAL:
                self.finished[index] = job
            self._reached.notify_all()


def upload(http: httpx.Client, images: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    """One multipart request with these images; its answer."""
    files = [("image", (name, data, "application/octet-stream")) for name, data in images]
    answer = http.post("/jobs", files=files)
    answer.raise_for_status()
    return answer.json()


def wait_submission(
    http: httpx.Client, submission: str, wait_until: Callable[..., None], timeout_s: float
) -> dict[str, Any]:
    """Until every job of a submission is terminal; the submission."""
    seen: dict[str, Any] = {}

    def ended() -> bool:
        answer = http.get(f"/submissions/{submission}")
        answer.raise_for_status()
        seen.update(answer.json())
        counts = seen["counts"]
        return sum(counts.get(state, 0) for state in TERMINAL) == seen["total"]

    wait_until(ended, timeout_s, f"submission {submission} to end")
    return seen


def all_jobs(http: httpx.Client, **filters: str) -> list[dict[str, Any]]:
    """Every job that a filter matches, page by page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = {"limit": "500", **filters, **({"cursor": cursor} if cursor else {})}
        answer = http.get("/jobs", params=params)
        answer.raise_for_status()
        page = answer.json()
        found += page["jobs"]
        cursor = page.get("cursor")
        if not cursor:
            return found


def query(data: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read the job table itself (read-only): the evidence that the service can't embellish."""
    with closing(sqlite3.connect(f"file:{table_path(data)}?mode=ro", uri=True)) as table:
        return table.execute(sql, values).fetchall()


def attempts(data: Path) -> list[dict[str, Any]]:
    """The audit of attempts, oldest first."""
    names = [
        "job",
        "token",
        "worker",
        "outcome",
        "granted_at",
        "started_at",
        "ended_at",
        "blamed",
        "error_code",
    ]
    rows = query(data, f"SELECT {','.join(names)} FROM attempts ORDER BY token")
    return [dict(zip(names, row, strict=True)) for row in rows]


def outcomes(jobs: Iterable[dict[str, Any]]) -> Counter[str]:
    """How many jobs are in which state."""
    return Counter(job["state"] for job in jobs)


def table_path(data: Path) -> Path:
    """The one SQLite file of a data directory."""
    (path,) = data.glob("*.db")
    return path
