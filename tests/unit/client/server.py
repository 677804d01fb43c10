"""A small REST server on loopback that keeps the API's contract, and misbehaves on request.

It does what the real one does with `Idempotency-Key`: a repeated key is answered
with the job of the first. `plan` is what the next requests meet, in order; after
it every request is served well.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Act = Callable[["Handler"], None]
TOP5 = [
    {"label": name, "class_id": number, "confidence": 0.5 / (number + 1)}
    for number, name in enumerate(["=red fox", "kit fox", "dingo", "dhole", "coyote"])
]


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """Its `Idempotency-Key`."""
        return self.headers["idempotency-key"]


@dataclass
class Table:
    """Jobs by idempotency key, as the real job table has them."""

    ids: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def job_id(self, seen: Seen) -> str:
        """The key's job, made at its first request."""
        job_id = self.ids.setdefault(seen.key, f"j{len(self.ids) + 1}")
        self.names.setdefault(job_id, seen.query.get("name", "image"))
        return job_id


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server
    seen: Seen

    def do_GET(self) -> None:
        self._meet()

    def do_POST(self) -> None:
        self._meet()

    def reply(self, status: int, body: Any, **headers: str) -> None:
        """Answer with JSON, or with bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def job(self, job_id: str, state: str = "succeeded") -> dict[str, Any]:
        """A job as the API shows it."""
        result = {**TOP5[0], "top5": TOP5, "timings_ms": {"infer": 1.5}}
        return {
            "id": job_id,
            "submission": job_id.replace("j", "s"),
            "name": self.server.table.names.get(job_id, ""),
            "state": state,
            "result": result if state == "succeeded" else None,
            "error": {"code": "poison", "message": "it ended 3 workers"}
            if state == "failed"
            else None,
            "unknown_field": 1,
        }

    def accept(self) -> str:
        """Put the image into the job table; its job."""
        with self.server.lock:
            return self.server.table.job_id(self.seen)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _meet(self) -> None:
        split = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(split.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        self.seen = Seen(self.command, split.path, query, headers, body)
        with self.server.lock:
            self.server.seen.append(self.seen)
            act = self.server.plan.pop(0) if self.server.plan else serve
        act(self)


class Server(ThreadingHTTPServer):
    """Serves on a port of the kernel's choice in threads of its own; a context manager."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, plan: Iterable[Act] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = list(plan)
        self.seen: list[Seen] = []
        self.table = Table()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is part of the tests."""


# --- what a request can meet -------------------------------------------------------------------


def serve(handler: Handler) -> None:
    """As the real server does when the job ends within the wait."""
    if handler.seen.method == "GET":
        handler.reply(200, handler.job(handler.seen.path.rpartition("/")[2]))
        return
    job_id = handler.accept()
    handler.reply(200, {"submission": "s1", "jobs": [handler.job(job_id)]})


def accept_then_drop(handler: Handler) -> None:
    """The image is in the job table, and the answer gets lost."""
    handler.accept()
    drop(handler)


def drop(handler: Handler) -> None:
    """The connection closes without an answer."""
    handler.close_connection = True


def accept_only(handler: Handler) -> None:
    """202: the job goes on."""
    job_id = handler.accept()
    handler.reply(202, {"submission": "s1", "jobs": [handler.job(job_id, "queued")]})


def in_state(state: str) -> Act:
    """200 with a job in this state."""

    def act(handler: Handler) -> None:
        if handler.seen.method == "GET":
            handler.reply(200, handler.job(handler.seen.path.rpartition("/")[2], state))
            return
        job = handler.job(handler.accept(), state)
        handler.reply(200, {"submission": "s1", "jobs": [job]})

    return act


def answer(status: int, body: Any = b"", **headers: str) -> Act:
    """This status and body."""
    return lambda handler: handler.reply(status, body, **headers)


def problem(status: int, code: str, **headers: str) -> Act:
    """An RFC 9457 problem."""
    return answer(status, {"status": status, "code": code, "detail": f"it is {code}"}, **headers)


def garbage(handler: Handler) -> None:
    """Bytes that are no HTTP."""
    handler.accept()
    handler.wfile.write(b"\x00\x01\xff no http here\r\n\r\n")
    handler.close_connection = True


def half(handler: Handler) -> None:
    """An answer that ends in its middle."""
    handler.accept()
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"submission": "s1", "jo')
    handler.close_connection = True


def held(until: threading.Event) -> Act:
    """Nothing until the event, then the answer to nobody."""

    def act(handler: Handler) -> None:
        handler.accept()
        until.wait(10)
        serve(handler)

    return act
