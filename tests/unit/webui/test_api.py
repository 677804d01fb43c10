"""Every other call of the API."""

from __future__ import annotations

import csv
import io

import httpx
import pytest
from PIL import Image

from tests.fakes.core import FakeCore
from tests.unit.webui.conftest import Web, picture
from wire import messages


def submit(client: httpx.Client, count: int, wait: bool = True) -> list[str]:
    files = [("image", (f"{i}.jpg", picture(i), "image/jpeg")) for i in range(count)]
    answer = client.post(f"/api/v1/jobs{'?wait=15' if wait else ''}", files=files)
    assert answer.status_code == (200 if wait else 202)
    return [job["id"] for job in answer.json()["jobs"]]


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


# --- reading --------------------------------------------------------------------------------------


def test_pages_are_newest_first_and_complete(client: httpx.Client) -> None:
    ids = submit(client, 25)
    seen: list[str] = []
    url: str | None = "/api/v1/jobs?limit=10&state=succeeded"
    pages = 0
    while url is not None:
        page = client.get(url)
        pages += 1
        seen += [job["id"] for job in page.json()["jobs"]]
        url = page.links.get("next", {}).get("url")
        assert (page.json()["cursor"] is None) == (url is None)
    assert pages == 3
    assert seen == ids[::-1]


def test_filters(client: httpx.Client, core: FakeCore) -> None:
    submit(client, 2)
    core.behaviour.workers = 0
    (waiting,) = submit(client, 1, wait=False)
    listed = client.get("/api/v1/jobs", params={"state": "queued,backoff"}).json()["jobs"]
    assert [job["id"] for job in listed] == [waiting]
    of_it = client.get("/api/v1/jobs", params={"submission": listed[0]["submission"]})
    assert [job["id"] for job in of_it.json()["jobs"]] == [waiting]


@pytest.mark.parametrize("query", ["state=odd", "submission=x", "limit=0", "limit=1001", "limit=x"])
def test_filters_that_say_nothing_are_refused(query: str, client: httpx.Client) -> None:
    assert problem(client.get(f"/api/v1/jobs?{query}")) == (422, "invalid_parameter")


def test_one_job(client: httpx.Client) -> None:
    (job,) = submit(client, 1)
    shown = client.get(f"/api/v1/jobs/{job}").json()
    assert shown["state"] == "succeeded"
    assert shown["finished_at"] >= shown["started_at"] >= shown["submitted_at"]
    assert shown["worker"].startswith("worker-")


@pytest.mark.parametrize("path", ["jobs/j99", "jobs/x", "jobs/j99/image", "submissions/s99"])
def test_what_is_not_there_is_404(path: str, client: httpx.Client) -> None:
    assert problem(client.get(f"/api/v1/{path}")) == (404, "not_found")


def test_the_image_comes_back_and_is_harmless(client: httpx.Client) -> None:
    page = b"<script>alert(1)</script>"
    files = [
        ("image", ("a.jpg", picture(7), "image/jpeg")),
        ("image", ("ev\u00edl.html", page, "text/html")),
        ("image", ("x.svg", b"<svg onload='x()'>", "image/svg+xml")),
    ]
    good, html, svg = (job["id"] for job in client.post("/api/v1/jobs", files=files).json()["jobs"])
    shown = client.get(f"/api/v1/jobs/{good}/image")
    assert (shown.content, shown.headers["content-type"]) == (picture(7), "image/jpeg")
    assert (
        client.get(
            f"/api/v1/jobs/{good}/image", headers={"If-None-Match": shown.headers["etag"]}
        ).status_code
        == 304
    )
    for hostile in (html, svg):
        answer = client.get(f"/api/v1/jobs/{hostile}/image")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_thumbnail_is_small_and_cached(client: httpx.Client, core: FakeCore) -> None:
    large = picture(9, side_px=2000)
    job = client.post("/api/v1/jobs", content=large, headers={"Content-Type": "image/jpeg"}).json()[
        "jobs"
    ][0]["id"]
    url = f"/api/v1/jobs/{job}/thumbnail?v=thumbnail-test"
    first = client.get(url)
    assert first.headers["content-type"] == "image/webp"
    assert max(Image.open(io.BytesIO(first.content)).size) == 320
    assert "immutable" in first.headers["cache-control"]
    again = client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert sum(isinstance(message, messages.GetImage) for message in core.seen) == 1


def test_no_thumbnail_of_what_is_no_image(client: httpx.Client) -> None:
    answer = client.post("/api/v1/jobs", content=b"hi", headers={"Content-Type": "image/png"})
    job = answer.json()["jobs"][0]["id"]
    assert problem(client.get(f"/api/v1/jobs/{job}/thumbnail")) == (422, "no_thumbnail")


def test_a_submission_counts(client: httpx.Client) -> None:
    submit(client, 4)
    submission = client.get("/api/v1/jobs").json()["jobs"][0]["submission"]
    shown = client.get(f"/api/v1/submissions/{submission}").json()
    assert (shown["total"], shown["done"], shown["progress"]) == (4, 4, 1.0)
    assert shown["counts"]["succeeded"] == 4


# --- changing -------------------------------------------------------------------------------------


def test_cancel_and_remove(client: httpx.Client, core: FakeCore) -> None:
    core.behaviour.workers = 0
    first, second = submit(client, 2, wait=False)
    assert client.post(f"/api/v1/jobs/{first}/cancel").json()["state"] == "cancelled"
    assert client.delete(f"/api/v1/jobs/{first}").status_code == 204
    assert problem(client.delete(f"/api/v1/jobs/{first}")) == (404, "not_found")
    assert client.post("/api/v1/jobs/cancel").json() == {"cancelled": 1}
    assert client.delete("/api/v1/jobs?state=cancelled").json() == {"removed": 1}
    assert second not in core.jobs


def test_clear(client: httpx.Client, core: FakeCore) -> None:
    submit(client, 3)
    assert client.delete("/api/v1/jobs").json() == {"removed": 3}
    assert core.jobs == {}


def test_retry_makes_new_jobs(client: httpx.Client) -> None:
    answer = client.post(
        "/api/v1/jobs?wait=9", content=b"no", headers={"Content-Type": "image/png"}
    )
    failed = answer.json()["jobs"][0]["id"]
    again = client.post(f"/api/v1/jobs/{failed}/retry")
    assert again.status_code == 202
    (job,) = again.json()["jobs"]
    assert job["id"] != failed
    many = client.post("/api/v1/jobs/retry", json={"jobs": [failed]})
    assert len(many.json()["jobs"]) == 1
    (fine,) = submit(client, 1)
    assert problem(client.post(f"/api/v1/jobs/{fine}/retry")) == (409, "not_retryable")


@pytest.mark.parametrize("body", [b"", b"{", b'{"jobs": ["x"]}', b'{"jobs": 1}', b"[]"])
def test_lists_of_jobs_that_cannot_be_read(body: bytes, client: httpx.Client) -> None:
    assert problem(client.post("/api/v1/jobs/retry", content=body))[0] == 400


# --- the cluster ----------------------------------------------------------------------------------


def test_workers_and_drain(client: httpx.Client) -> None:
    first, _ = client.get("/api/v1/workers").json()["workers"]
    assert first["liveness"] == "alive"
    assert client.post(f"/api/v1/workers/{first['id']}/drain").status_code == 202
    shown = client.get("/api/v1/workers").json()["workers"]
    assert shown[0]["admission"] == "draining"
    assert problem(client.post("/api/v1/workers/nobody/drain")) == (404, "not_found")


def test_model(client: httpx.Client, core: FakeCore) -> None:
    shown = client.get("/api/v1/model")
    assert shown.json()["id"] == "squeezenet1_1-imagenet"
    assert shown.json()["warning"] is None
    tag = {"If-None-Match": shown.headers["etag"]}
    assert client.get("/api/v1/model", headers=tag).status_code == 304
    core.behaviour.warning = "bundled"
    assert client.get("/api/v1/model", headers=tag).json()["warning"] == "bundled"


def test_stats_health_metrics(client: httpx.Client, core: FakeCore) -> None:
    submit(client, 2)
    assert client.get("/api/v1/stats").json()["counts"] == {"succeeded": 2}
    assert client.get("/healthz").json() == {"status": "ok", "core": True}
    assert client.get("/readyz").status_code == 200
    core.behaviour.workers = 0
    assert problem(client.get("/readyz")) == (503, "not_ready")
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "lookout_jobs 2" in metrics.text
    assert "lookout_web_requests_in_flight 1" in metrics.text


# --- exports --------------------------------------------------------------------------------------


def test_exports_have_every_job(client: httpx.Client, core: FakeCore) -> None:
    core.behaviour.workers = 0
    files = [("image", (f"{i}", picture(i % 250), "image/jpeg")) for i in range(1203)]
    client.post("/api/v1/jobs", files=files)
    rows = list(csv.DictReader(io.StringIO(client.get("/api/v1/results.csv").text)))
    assert len(rows) == 1203
    shown = client.get("/api/v1/results.json").json()
    assert [job["id"] for job in shown] == [row["id"] for row in rows]
    assert len({row["id"] for row in rows}) == 1203
    none = client.get("/api/v1/results.json?state=failed")
    assert none.json() == []


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_file_name_is_no_formula(name: str, client: httpx.Client) -> None:
    client.post("/api/v1/jobs", files=[("image", (name, picture(), "image/jpeg"))])
    (row,) = csv.DictReader(io.StringIO(client.get("/api/v1/results.csv").text))
    assert row["name"] == "'" + name


# --- manners --------------------------------------------------------------------------------------


def test_wrong_methods_and_types(client: httpx.Client) -> None:
    answer = client.put("/api/v1/jobs", content=b"x")
    assert problem(answer) == (405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]
    assert problem(client.get("/api/v1/nothing")) == (404, "not_found")
    html = {"Accept": "text/html"}
    assert problem(client.get("/api/v1/jobs", headers=html)) == (406, "not_acceptable")
    assert problem(client.get("/api/v1/events", headers=html)) == (406, "not_acceptable")


def test_foreign_hosts_and_origins_are_refused_everywhere(client: httpx.Client) -> None:
    for path in ("/", "/api/v1/jobs", "/api/v1/events", "/static/app.js", "/healthz"):
        answer = client.get(path, headers={"Host": "evil.example"})
        assert problem(answer) == (403, "host_not_allowed")
    cross = {"Origin": "http://evil.example"}
    assert problem(client.delete("/api/v1/jobs", headers=cross)) == (403, "cross_origin")
    image = {"Sec-Fetch-Site": "cross-site"}
    answer = client.get("/api/v1/classify?url=http://127.0.0.1/", headers=image)
    assert problem(answer) == (403, "cross_origin")


def test_every_answer_is_hardened(client: httpx.Client) -> None:
    for path in ("/", "/static/app.js", "/api/v1/jobs", "/api/v1/jobs/j1", "/nothing", "/healthz"):
        answer = client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
    assert "unsafe" not in client.get("/").headers["content-security-policy"]


def test_head_is_get_without_the_body(client: httpx.Client) -> None:
    for path in ("/", "/api/v1/jobs", "/api/v1/stats", "/healthz", "/static/app.js"):
        head, get = client.head(path), client.get(path)
        assert head.status_code == get.status_code == 200
        assert head.content == b""


def test_a_silent_core_costs_its_timeout(client: httpx.Client, core: FakeCore, web: Web) -> None:
    core.behaviour.silent.add("GetStats")
    answer = client.get("/readyz")
    assert problem(answer) == (503, "core_unavailable")
    assert answer.headers["retry-after"]
    assert client.get("/healthz").status_code == 200
