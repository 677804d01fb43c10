"""Reading a body: as few turns through the server as there are pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from webui.config import Limits
from webui.exchange import Budget, Exchange, Scope, Stalls


def reading(pieces: list[bytes], headers: dict[str, str]) -> tuple[bytes, int]:
    """The body, and how many pieces of it were asked for; the server has one more, an empty one."""
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        body = pieces[asked - 1] if asked <= len(pieces) else b""
        return {"type": "http.request", "body": body, "more_body": asked <= len(pieces)}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(f"nothing is to be answered: {message}")

    async def main() -> bytes:
        scope: Scope = {
            "method": "POST",
            "path": "/",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        exchange = Exchange(scope, receive, send, Limits(), Budget(2**20), Stalls())
        return b"".join([piece async for piece in exchange.body(2**20)])

    return asyncio.run(main()), asked


@pytest.mark.parametrize("pieces", [[b"abc"], [b"ab", b"c"]], ids=["one", "two"])
def test_a_body_of_known_length_ends_with_its_last_byte(pieces: list[bytes]) -> None:
    assert reading(pieces, {"content-length": "3"}) == (b"abc", len(pieces))


def test_a_body_of_unknown_length_ends_when_the_server_says_so() -> None:
    assert reading([b"abc"], {"transfer-encoding": "chunked"}) == (b"abc", 2)


def test_an_empty_body_ends_when_the_server_says_so() -> None:
    assert reading([], {"content-length": "0"}) == (b"", 1)
