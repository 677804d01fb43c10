"""Fetching URLs: tricks that lead into the local network, and the caps.

The HTTP client, the sockets and the servers are real; only the resolver is
the test's, so that names can lead wherever an attacker would point them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from webui import addresses
from webui.config import Limits
from webui.fetch import Fetched, Fetcher, Refusal, allow_any, resolve
from webui.problems import Problem

IMAGE = b"\xff\xd8\xff\xe0 as if a picture"
PUBLIC = "93.184.216.34"


@dataclass
class Names:
    """A resolver: what the attacker's DNS says, call by call."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.answers:
            return await resolve(host, port)  # numbers in all their spellings
        turns = self.answers[host]
        return turns.pop(0) if len(turns) > 1 else turns[0]


class Handler(BaseHTTPRequestHandler):
    """A web server with every kind of answer."""

    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"]))
        kind, _, rest = self.path[1:].partition("?")
        getattr(self, f"answer_{kind.replace('.', '_')}")(rest)

    def answer_photo_jpg(self, _: str) -> None:
        self.reply("image/jpeg; charset=binary", IMAGE)

    def answer_page(self, _: str) -> None:
        self.reply("text/html", b"<html>")

    def answer_zipped(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()

    def answer_large(self, _: str) -> None:
        self.reply("image/jpeg", b"x" * 5000)

    def answer_endless(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x")
                time.sleep(0.02)
        except OSError:
            return

    def answer_to(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_missing(self, _: str) -> None:
        self.send_error(404)

    def reply(self, media_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@dataclass
class Site:
    """A server on loopback, and who was asked for what."""

    port: int
    seen: list[tuple[str, str | None]]


@pytest.fixture
def site() -> Iterator[Site]:
    seen: list[tuple[str, str | None]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"seen": seen}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Site(server.server_address[1], seen)
    server.shutdown()
    server.server_close()


def fetch(
    url: str,
    names: Names | None = None,
    *,
    refusal: Refusal = addresses.refusal,
    limits: Limits | None = None,
) -> Fetched:
    async def run() -> Fetched:
        fetcher = Fetcher(limits or Limits(fetch_s=5.0), refusal=refusal, resolver=names or Names())
        return await fetcher.fetch(url)

    return asyncio.run(run())


def refused(url: str, names: Names | None = None) -> str:
    with pytest.raises(Problem) as problem:
        fetch(url, names)
    return problem.value.code


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",  # decimal
        "0x7f000001",  # hexadecimal
        "0177.0.0.1",  # octal
        "0x7f.1",
        "0",
        "0.0.0.0",
        "localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "127。0。0。1",  # ideographic full stops, which IDNA turns into dots
        "①②⑦.⓪.⓪.①",  # enclosed digits
    ],
)
def test_spellings_of_local_addresses_are_refused(host: str, site: Site) -> None:
    assert refused(f"http://{host}:{site.port}/photo.jpg") in {"url_refused", "url_invalid"}
    assert site.seen == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "//example.org/x",
        "http://",
        "http:///photo.jpg",
        "http://user@example.org/photo.jpg",
        "http://example.org@127.0.0.1/photo.jpg",
        "http://user:password@example.org/photo.jpg",
        "http://exa mple.org/",
        "http://example.org:99999/",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http://" + "a" * 5000,
        "",
    ],
)
def test_urls_that_are_not_plain_http_are_invalid(url: str) -> None:
    assert refused(url) == "url_invalid"


def test_a_name_that_leads_to_a_private_address_is_refused(site: Site) -> None:
    names = Names({"photos.example": [["127.0.0.1"]]})
    assert refused(f"http://photos.example:{site.port}/photo.jpg", names) == "url_refused"
    assert site.seen == []


def test_one_private_address_among_public_ones_is_refused(site: Site) -> None:
    names = Names({"photos.example": [[PUBLIC, "127.0.0.1"]]})
    assert refused(f"http://photos.example:{site.port}/photo.jpg", names) == "url_refused"


def test_rebinding_has_no_second_answer_to_use(site: Site) -> None:
    """The name leads to an allowed address once and inside when asked again: it isn't."""
    names = Names({"photos.example": [["127.0.0.1"], ["127.0.0.2"]]})
    url = f"http://photos.example:{site.port}/photo.jpg"
    assert fetch(url, names, refusal=all_but_the_first_server).data == IMAGE
    assert names.asked == ["photos.example"]


def test_the_checked_address_is_the_one_connected_to(site: Site) -> None:
    """Pinned: the backend below gets an address, the server gets the name."""
    names = Names({"photos.example": [["127.0.0.1"]]})
    url = f"http://photos.example:{site.port}/photo.jpg"
    fetched = fetch(url, names, refusal=allow_any)
    assert fetched == Fetched("photo.jpg", "image/jpeg", IMAGE)
    assert site.seen == [("/photo.jpg", f"photos.example:{site.port}")]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:{port}/photo.jpg",
        "http://[::1]:{port}/photo.jpg",
        "//127.0.0.2:{port}/photo.jpg",
        "http://inside.example:{port}/photo.jpg",
        "file:///etc/passwd",
    ],
)
def test_redirects_are_checked_like_the_first(target: str, site: Site) -> None:
    names = Names({"inside.example": [["127.0.0.2"]]})
    url = f"http://127.0.0.1:{site.port}/to?{target.format(port=site.port)}"
    with pytest.raises(Problem) as problem:
        fetch(url, names, refusal=all_but_the_first_server)
    assert problem.value.code in {"url_refused", "url_invalid"}
    assert len(site.seen) == 1


def all_but_the_first_server(address: str) -> str | None:
    """Let the test's own server through, and nothing else that is local."""
    return None if address == "127.0.0.1" else addresses.refusal(address)


def test_redirects_have_an_end(site: Site) -> None:
    url = f"http://127.0.0.1:{site.port}/to?/to?/to?/to?/to?/to?/to?/photo.jpg"
    with pytest.raises(Problem) as problem:
        fetch(url, refusal=allow_any)
    assert problem.value.code == "url_unreachable"
    assert len(site.seen) == Limits().fetch_redirects + 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("page", "url_not_an_image"),
        ("zipped", "url_not_an_image"),
        ("large", "url_too_large"),
        ("missing", "url_unreachable"),
    ],
)
def test_what_is_not_a_small_image_is_refused(path: str, code: str, site: Site) -> None:
    limits = Limits(fetch_bytes=4000, fetch_s=5.0)
    with pytest.raises(Problem) as problem:
        fetch(f"http://127.0.0.1:{site.port}/{path}", refusal=allow_any, limits=limits)
    assert problem.value.code == code


def test_a_slow_server_costs_the_deadline_and_no_more(site: Site) -> None:
    began = time.monotonic()
    with pytest.raises(Problem) as problem:
        fetch(
            f"http://127.0.0.1:{site.port}/endless", refusal=allow_any, limits=Limits(fetch_s=0.5)
        )
    assert problem.value.code == "url_timeout"
    assert time.monotonic() - began < 5


def test_nobody_there(site: Site) -> None:
    with pytest.raises(Problem) as problem:
        fetch("http://127.0.0.1:1/photo.jpg", refusal=allow_any)
    assert problem.value.code == "url_unreachable"


def test_no_proxy_of_the_environment_is_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert fetch(f"http://127.0.0.1:{site.port}/photo.jpg", refusal=allow_any).data == IMAGE
