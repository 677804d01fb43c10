"""The event stream: live, resumed, reset, over a restart of the core."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import msgspec
import pytest

from tests.fakes.core import FakeCore
from tests.unit.webui.conftest import Web, picture
from webui.chunks import HEARTBEAT, RESET, Chunk, encode, takes_gzip
from webui.config import Limits
from webui.hub import Client
from wire import messages

Seen = tuple[str, str, dict[str, object]]
DEADLINE_S = 15.0


@contextmanager
def stream(web: Web, query: str = "", **headers: str) -> Iterator[Iterator[Seen]]:
    """Open an event stream; yields (id, event, data) of each event."""
    with (
        web.client() as client,
        client.stream("GET", f"/api/v1/events{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield read(answer)


def read(answer: httpx.Response) -> Iterator[Seen]:
    began = time.monotonic()
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        assert time.monotonic() - began < DEADLINE_S, "no event came"
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        elif "event" in fields:
            yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
            fields = {}


def until(events: Iterator[Seen], wanted: Callable[[Seen], bool]) -> Seen:
    return next(event for event in events if wanted(event))


def job_ended(event: Seen) -> bool:
    return event[1] == "job" and event[2]["state"] == "succeeded"


def submit(web: Web, seed: int) -> str:
    with web.client() as client:
        answer = client.post(
            "/api/v1/jobs", content=picture(seed), headers={"Content-Type": "image/jpeg"}
        )
    return str(answer.json()["jobs"][0]["id"])


def test_a_job_is_followed_to_its_end(web: Web, core: FakeCore) -> None:
    with stream(web) as events:
        assert next(events)[1:] == ("core", {"up": True})
        job = submit(web, 1)
        _, _, shown = until(events, job_ended)
        assert shown["id"] == job
        assert shown["result"]["top5"]  # type: ignore[index]
        assert "top5" not in shown


def test_a_stream_goes_on_where_it_was(web: Web, core: FakeCore) -> None:
    with stream(web) as events:
        submit(web, 1)
        last_id, _, _ = until(events, job_ended)
    missed = submit(web, 2)
    core.wait_for(lambda: core.jobs[missed].state == "succeeded")
    with stream(web, **{"Last-Event-ID": last_id}) as events:
        assert until(events, job_ended)[2]["id"] == missed
    with stream(web, f"?after={last_id}") as events:
        assert until(events, job_ended)[2]["id"] == missed


def test_an_unknown_place_is_a_reset(web: Web, core: FakeCore) -> None:
    with stream(web, **{"Last-Event-ID": "1-99999999"}) as events:
        assert [next(events)[1] for _ in range(2)] == ["core", "reset"]


def test_a_restarted_core_is_told_and_joined_again(
    own_core: FakeCore, start_web: Callable[..., Web]
) -> None:
    web = start_web(own_core)
    with stream(web) as events:
        until(events, lambda event: event[1] == "stats")
        own_core.hang_up()
        assert until(events, lambda event: event[1] == "core")[2] == {"up": False}
        with web.client() as client:
            answer = client.get("/api/v1/stats")
            assert answer.status_code == 503
            assert answer.json()["code"] == "core_unavailable"
            assert int(answer.headers["retry-after"]) >= 1
            assert client.get("/healthz").json()["core"] is False
        own_core.listen()
        assert until(events, lambda event: event[1] == "core")[2] == {"up": True}
        job = submit(web, 3)
        assert until(events, job_ended)[2]["id"] == job


def test_a_read_waits_for_a_core_that_is_back_soon(
    own_core: FakeCore, start_web: Callable[..., Web]
) -> None:
    web = start_web(own_core, core_patience_s=10)
    with web.client() as client:
        assert client.get("/readyz").status_code == 200
        own_core.hang_up()
        own_core.listen()
        assert client.get("/api/v1/stats").status_code == 200


def test_streams_are_bounded_in_number(own_core: FakeCore, start_web: Callable[..., Web]) -> None:
    web = start_web(own_core, sse_clients=2)
    with stream(web) as one, stream(web) as two, web.client() as client:
        next(one), next(two)
        answer = client.get("/api/v1/events")
        assert (answer.status_code, answer.json()["code"]) == (503, "busy")


# --- the parts, without a server ------------------------------------------------------------------


def event(number: int, kind: str, **data: object) -> messages.Event:
    return messages.Event(id=f"1-{number}", kind=kind, data=msgspec.json.encode(data))


def job_event(number: int, job: str, state: messages.JobState) -> messages.Event:
    view = messages.JobView(id=job, submission="s1", name="x", state=state, submitted_at="t")
    return messages.Event(id=f"1-{number}", kind="job", data=msgspec.json.encode(view))


def test_only_the_last_state_of_a_thing_is_sent() -> None:
    text = encode(
        [
            job_event(1, "j1", "queued"),
            job_event(2, "j2", "queued"),
            event(3, "stats", uptime_s=1),
            job_event(4, "j1", "leased"),
            event(5, "stats", uptime_s=2),
            event(6, "removed", jobs=["j9"]),
            event(7, "removed", jobs=["j8"]),
        ]
    ).plain.decode()
    assert [line for line in text.splitlines() if line.startswith("id")] == [
        "id: 1-2",
        "id: 1-4",
        "id: 1-5",
        "id: 1-6",
        "id: 1-7",
    ]


def test_a_client_that_does_not_read_is_reset_and_bounded() -> None:
    async def run() -> tuple[bytes | None, bytes | None]:
        client = Client(bytes_max=100)
        for _ in range(50):
            client.put(Chunk(b"x" * 40))
        first = await client.next(1)
        return first, await client.next(0.01)

    first, second = asyncio.run(run())
    assert first is not None
    assert RESET.plain in first
    assert len(first) <= 100
    assert second == HEARTBEAT.plain


def test_a_closed_client_gets_what_is_queued_and_then_the_end() -> None:
    async def run() -> list[bytes | None]:
        client = Client(Limits().sse_client_bytes)
        client.put(Chunk(b"last words"))
        client.close()
        return [await client.next(1), await client.next(1)]

    assert asyncio.run(run()) == [b"last words", None]


def unpacked(client: Client, after: list[bytes]) -> bytes:
    """What a reader that is not told where blocks end makes of a gzip stream."""
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    return b"".join(reader.decompress(piece) for piece in [*after, client.ending])


def test_clients_who_came_at_other_times_share_the_compressed_bytes() -> None:
    async def run() -> tuple[bytes, bytes, bytes]:
        early, late = Client(10**6, gzip=True), Client(10**6, gzip=True)
        first, second = Chunk(b"data: one\n\n" * 99), Chunk(b"data: two\n\n" * 99)
        early.put(first)
        read = [await early.next(1) or b""]
        for client in (early, late):
            client.put(second)
        read.append(await early.next(1) or b"")
        alone = await late.next(1) or b""
        assert alone.endswith(second.packed)
        assert len(second.packed) < len(second.plain) // 5
        return unpacked(early, read), unpacked(late, [alone]), first.plain + second.plain

    early, late, both = asyncio.run(run())
    assert early == both
    assert both.endswith(late)


@pytest.mark.parametrize("started", [True, False])
def test_a_gzip_stream_is_whole_after_a_reset(started: bool) -> None:
    async def run() -> bytes:
        client = Client(bytes_max=100, gzip=True)
        read = []
        if started:
            client.put(Chunk(b"event: seen\n\n"))
            read.append(await client.next(1) or b"")
        for number in range(50):
            client.put(Chunk(b"x" * number))
        read.append(await client.next(1) or b"")
        return unpacked(client, read)

    text = asyncio.run(run())
    assert text.startswith(b"event: seen") is started
    assert RESET.plain in text


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [("gzip, deflate, br", True), ("br;q=1, gzip;q=0.5", True), ("*", True), ("gzip;q=0", False),
     ("identity", False), ("", False), (None, False)],
)  # fmt: skip
def test_only_who_asks_gets_gzip(sent: str | None, wanted: bool) -> None:
    assert takes_gzip(sent) is wanted


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_a_stream_is_the_same_in_both_codings(coding: str, web: Web) -> None:
    headers = {"Accept-Encoding": coding}
    with web.client() as client, client.stream("GET", "/api/v1/events", headers=headers) as answer:
        assert answer.headers.get("content-encoding", "identity") == coding
        assert answer.headers["vary"] == "Accept-Encoding"
        events = read(answer)
        assert next(events)[1:] == ("core", {"up": True})
        job = submit(web, 7)
        assert until(events, job_ended)[2]["id"] == job
