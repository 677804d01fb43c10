"""Submitting images in every form, and everything that is refused."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from tests.fakes.core import FakeCore
from tests.unit.webui.conftest import Web, picture
from wire import messages

MIB = 2**20


def names(answer: httpx.Response) -> list[str]:
    return [job["name"] for job in answer.json()["jobs"]]


def ids(answer: httpx.Response) -> list[str]:
    return [job["id"] for job in answer.json()["jobs"]]


def code(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    return str(body["code"])


# --- the three forms ---------------------------------------------------------------------------


def test_a_raw_body_is_one_image(client: httpx.Client, core: FakeCore) -> None:
    data = picture(1)
    answer = client.post(
        "/api/v1/jobs?name=a%20b.jpg", content=data, headers={"Content-Type": "image/jpeg"}
    )
    assert answer.status_code == 202
    (job,) = answer.json()["jobs"]
    assert (job["name"], job["media_type"], job["size_bytes"]) == (
        "a b.jpg",
        "image/jpeg",
        len(data),
    )
    assert answer.headers["location"] == f"/api/v1/submissions/{answer.json()['submission']}"
    assert core.images[job["id"]].data == data


def test_only_who_waits_for_the_outcome_is_patient(client: httpx.Client, core: FakeCore) -> None:
    """The core lets a patient part wait for others; whoever waits for its 202 is not."""
    kind = {"Content-Type": "image/jpeg"}
    client.post("/api/v1/jobs", content=picture(1), headers=kind).raise_for_status()
    answer = client.post("/api/v1/jobs", content=picture(2), headers={**kind, "Prefer": "wait=1"})
    answer.raise_for_status()
    submits = [said for said in core.seen if isinstance(said, messages.Submit)]
    assert [submit.patient for submit in submits] == [False, True]


def test_a_name_may_come_in_a_header(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/octet-stream", "X-Filename": "dir/x.png"}
    answer = client.post("/api/v1/jobs", content=picture(), headers=headers)
    assert names(answer) == ["dir/x.png"]


def test_a_form_has_any_number_of_images(client: httpx.Client, core: FakeCore) -> None:
    files = [("image", (f"{i}.jpg", picture(i), "image/jpeg")) for i in range(25)]
    answer = client.post("/api/v1/jobs", files=files)
    assert answer.status_code == 202
    assert names(answer) == [f"{i}.jpg" for i in range(25)]
    stored = [core.images[job["id"]].data for job in answer.json()["jobs"]]
    assert stored == [picture(i) for i in range(25)]


def test_a_large_form_goes_to_the_core_in_parts(client: httpx.Client, core: FakeCore) -> None:
    files = [("image", (f"{i}.jpg", picture(i) + bytes(MIB), "image/jpeg")) for i in range(20)]
    answer = client.post("/api/v1/jobs", files=files)
    assert len(answer.json()["jobs"]) == 20
    parts = [message for message in core.seen if isinstance(message, messages.Submit)]
    assert len(parts) >= 5
    assert all(sum(len(image.data) for image in part.images) <= 5 * MIB for part in parts)
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len({job["submission"] for job in answer.json()["jobs"]}) == 1


def test_a_url_is_fetched(client: httpx.Client, core: FakeCore) -> None:
    class Photo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(picture(3, kind="PNG"))

    server = HTTPServer(("127.0.0.1", 0), Photo)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/some/photo.png"
    answer = client.post("/api/v1/jobs?wait=10", json={"url": url})
    direct = client.get("/api/v1/classify", params={"url": url})
    server.shutdown()
    server.server_close()
    assert answer.status_code == 200
    (job,) = answer.json()["jobs"]
    assert (job["name"], job["media_type"], job["state"]) == ("photo.png", "image/png", "succeeded")
    assert direct.status_code == 200
    assert direct.json()["result"]["label"] == job["result"]["label"]


# --- waiting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "headers"), [("?wait=15", {}), ("", {"Prefer": "respond-async, wait=15"})]
)
def test_a_wait_answers_200_with_results(
    query: str, headers: dict[str, str], client: httpx.Client
) -> None:
    headers = {"Content-Type": "image/jpeg", **headers}
    answer = client.post(f"/api/v1/jobs{query}", content=picture(5), headers=headers)
    assert answer.status_code == 200
    (job,) = answer.json()["jobs"]
    assert job["state"] == "succeeded"
    result = job["result"]
    assert len(result["top5"]) == 5
    assert result["label"] == result["top5"][0]["label"]
    assert 0 < sum(guess["confidence"] for guess in result["top5"]) <= 1
    assert job["error"] is None


def test_a_wait_that_is_over_answers_202(client: httpx.Client, core: FakeCore) -> None:
    core.behaviour.workers = 0
    answer = client.post(
        "/api/v1/jobs?wait=0.2", content=picture(), headers={"Content-Type": "image/jpeg"}
    )
    assert answer.status_code == 202
    assert answer.json()["jobs"][0]["state"] == "queued"
    job = answer.json()["jobs"][0]["id"]
    assert client.get(f"/api/v1/jobs/{job}?wait=0.1").json()["state"] == "queued"


def test_a_bad_image_fails_alone(client: httpx.Client) -> None:
    files = [
        ("image", ("good.jpg", picture(), "image/jpeg")),
        ("image", ("bad.jpg", b"hello", "image/jpeg")),
    ]
    answer = client.post("/api/v1/jobs?wait=10", files=files)
    good, bad = answer.json()["jobs"]
    assert (good["state"], bad["state"]) == ("succeeded", "failed")
    assert bad["error"]["code"] == "not_an_image"
    assert bad["result"] is None


def test_the_deadline_is_passed_on(client: httpx.Client, core: FakeCore) -> None:
    client.post(
        "/api/v1/jobs?timeout=12.5", content=picture(), headers={"Content-Type": "image/jpeg"}
    )
    (submit,) = [message for message in core.seen if isinstance(message, messages.Submit)]
    assert submit.timeout_s == 12.5


# --- Idempotency-Key ---------------------------------------------------------------------------


def test_the_same_key_and_images_give_the_same_jobs(client: httpx.Client, core: FakeCore) -> None:
    """Also when the form's boundary differs, as it does between two tries."""
    files = [("image", ("a.jpg", picture(1), "image/jpeg"))]
    first = client.post("/api/v1/jobs", files=files, headers={"Idempotency-Key": "k1"})
    again = client.post("/api/v1/jobs", files=files, headers={"Idempotency-Key": "k1"})
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert first.json()["submission"] == again.json()["submission"]
    assert len(core.jobs) == 1


def test_a_replay_of_a_large_submission_leaves_no_second_one(
    client: httpx.Client, core: FakeCore
) -> None:
    files = [("image", (f"{i}.jpg", picture(i) + bytes(MIB), "image/jpeg")) for i in range(12)]
    first = client.post("/api/v1/jobs", files=files, headers={"Idempotency-Key": "k2"})
    again = client.post("/api/v1/jobs", files=files, headers={"Idempotency-Key": "k2"})
    assert [job["id"] for job in first.json()["jobs"]] == [
        job["id"] for job in again.json()["jobs"]
    ]
    assert len(core.jobs) == 12


def test_the_same_key_with_other_images_is_refused(client: httpx.Client, core: FakeCore) -> None:
    headers = {"Idempotency-Key": "k3", "Content-Type": "image/jpeg"}
    client.post("/api/v1/jobs", content=picture(1), headers=headers)
    other = client.post("/api/v1/jobs", content=picture(2), headers=headers)
    assert other.status_code == 422
    assert code(other) == "idempotency_mismatch"


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "content_type", "query", "expected"),
    [
        (b"", "image/jpeg", "", (422, "no_image")),
        (b"a=b", "application/x-www-form-urlencoded", "", (415, "unsupported_media_type")),
        (b"hello", "text/plain", "", (415, "unsupported_media_type")),
        (b"{", "application/json", "", (400, "bad_request")),
        (b"{}", "application/json", "", (400, "bad_request")),
        (b'{"url": 3}', "application/json", "", (400, "bad_request")),
        (b'{"url": "x", "more": 1}', "application/json", "", (400, "bad_request")),
        (b'{"url": "ftp://a/b"}', "application/json", "", (422, "url_invalid")),
        (b"xx", "multipart/form-data", "", (400, "bad_multipart")),
        (b"xx", "multipart/form-data; boundary=b", "", (400, "bad_multipart")),
        (b"--b--\r\n", "multipart/form-data; boundary=b", "", (422, "no_image")),
        (b"x", "image/jpeg", "?wait=soon", (422, "invalid_parameter")),
        (b"x", "image/jpeg", "?timeout=-1", (422, "invalid_parameter")),
        (b"x", "image/jpeg", "?timeout=nan", (422, "invalid_parameter")),
    ],
)
def test_bodies_that_are_no_submission(
    content: bytes,
    content_type: str,
    query: str,
    expected: tuple[int, str],
    client: httpx.Client,
    core: FakeCore,
) -> None:
    answer = client.post(
        f"/api/v1/jobs{query}", content=content, headers={"Content-Type": content_type}
    )
    assert (answer.status_code, code(answer)) == expected
    assert core.jobs == {}


def test_a_form_with_another_field_says_which_one_to_use(client: httpx.Client) -> None:
    answer = client.post("/api/v1/jobs", files=[("photo", ("a.jpg", picture(), "image/jpeg"))])
    assert code(answer) == "unknown_field"
    assert "'image'" in answer.json()["detail"]


def test_an_empty_file_field_of_a_browser_is_no_image(client: httpx.Client) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert code(client.post("/api/v1/jobs", content=body, headers=headers)) == "no_image"


def test_an_image_over_the_limit_is_named_and_nothing_is_kept(
    client: httpx.Client, core: FakeCore
) -> None:
    files = [("image", (f"{i}.jpg", bytes(2 * MIB), "image/jpeg")) for i in range(4)]
    files.append(("image", ("huge.jpg", bytes(33 * MIB), "image/jpeg")))
    answer = client.post("/api/v1/jobs", files=files)
    assert (answer.status_code, code(answer)) == (413, "image_too_large")
    assert "huge.jpg" in answer.json()["detail"]
    core.wait_for(lambda: not core.jobs)
    raw = client.post(
        "/api/v1/jobs", content=bytes(33 * MIB), headers={"Content-Type": "image/jpeg"}
    )
    assert code(raw) == "image_too_large"


def test_a_full_queue_is_429_with_retry_after_and_nothing_is_kept(
    client: httpx.Client, core: FakeCore
) -> None:
    core.behaviour.workers = 0
    core.behaviour.queue_limit_jobs = 2
    core.behaviour.refuse["Submit"] = messages.Refused(
        request=0, code="queue_full", message="full", retry_after_s=6.2
    )
    answer = client.post("/api/v1/jobs", content=picture(), headers={"Content-Type": "image/jpeg"})
    assert (answer.status_code, code(answer)) == (429, "queue_full")
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("refusal", "status"),
    [("draining", 503), ("starting", 503), ("storage_full", 507), ("conflict", 409), ("odd", 409)],
)
def test_refusals_of_the_core_have_their_status(
    refusal: str, status: int, client: httpx.Client, core: FakeCore
) -> None:
    core.behaviour.refuse["Submit"] = messages.Refused(request=0, code=refusal, message="no")
    answer = client.post("/api/v1/jobs", content=b"x", headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == status


def test_a_client_that_goes_away_mid_form_leaves_nothing(web: Web, core: FakeCore) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n\r\n%s\r\n'
    with socket.create_connection(("127.0.0.1", web.port)) as sender:
        sender.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        for number in range(14):
            sender.sendall(part % (number, bytes(MIB)))
        core.wait_for(lambda: bool(core.jobs))
    core.wait_for(lambda: not core.jobs)


# --- slow and broken bodies -----------------------------------------------------------------------


@pytest.fixture
def strict(core: FakeCore, start_web: Callable[..., Web]) -> Web:
    limits = {"body_idle_s": 0.4, "body_grace_s": 0.5, "body_bytes_per_s": 1000.0}
    return start_web(core, **limits, request_bytes=5 * MIB, request_images=3)


def raw_request(web: Web, head: bytes, body: bytes = b"") -> bytes:
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as sender:
        sender.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n" + body
        )
        return sender.recv(65536)


def test_a_body_that_stops_is_408(strict: Web) -> None:
    head = b"Content-Type: image/jpeg\r\nContent-Length: 1000"
    assert raw_request(strict, head, b"abc").startswith(b"HTTP/1.1 408")


def test_a_body_that_drips_is_408(strict: Web) -> None:
    answers: list[bytes] = []
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as sender:
        sender.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: image/jpeg\r\nContent-Length: 1000000\r\n\r\n"
        )
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    sender.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        answers.append(sender.recv(65536))
        stop.set()
        thread.join()
    assert answers[0].startswith(b"HTTP/1.1 408")


def test_a_declared_length_over_the_limit_is_refused_unread(strict: Web) -> None:
    head = b"Content-Type: image/jpeg\r\nContent-Length: 99999999\r\nExpect: 100-continue"
    answer = raw_request(strict, head)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"request_too_large" in answer


def test_an_undeclared_length_is_counted(strict: Web) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
        for _ in range(60):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with strict.client() as client:
        answer = client.post("/api/v1/jobs", content=body(), headers=headers)
    assert (answer.status_code, code(answer)) == (413, "request_too_large")


def test_too_many_images_are_refused(strict: Web, core: FakeCore) -> None:
    with strict.client() as client:
        files = [("image", (f"{i}.jpg", picture(i), "image/jpeg")) for i in range(4)]
        answer = client.post("/api/v1/jobs", files=files)
    assert (answer.status_code, code(answer)) == (413, "too_many_images")
    assert core.jobs == {}
