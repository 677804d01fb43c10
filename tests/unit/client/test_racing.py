"""Another connection is tried when the first is late; the first that stands is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import httpcore
import pytest
from httpcore import SOCKET_OPTION, AsyncNetworkStream

from client.racing import LATE_S, TRIES_MAX, RacingBackend


class Stream(AsyncNetworkStream):
    """Knows whether it was closed."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


class Network(httpcore.AsyncNetworkBackend):
    """Each try meets the next of `fates`; the last one stays for the others."""

    def __init__(self, *fates: Callable[[], asyncio.Future[None]]) -> None:
        self.fates = list(fates)
        self.streams: list[Stream] = []
        self.tries = 0

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        self.tries += 1
        number = self.tries
        fate = self.fates.pop(0) if len(self.fates) > 1 else self.fates[0]
        await fate()
        self.streams.append(Stream(number))
        return self.streams[-1]


def at_once() -> asyncio.Future[None]:
    """It stands."""
    standing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    standing.set_result(None)
    return standing


def never() -> asyncio.Future[None]:
    """The SYN was lost."""
    return asyncio.get_running_loop().create_future()


def refused() -> asyncio.Future[None]:
    """Nobody listens."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answer.set_exception(httpcore.ConnectError("refused"))
    return answer


def connect(network: Network) -> tuple[Stream, float]:
    """What came of it, and after how many seconds of the loop's clock."""

    async def go() -> tuple[Stream, float]:
        clock = asyncio.get_running_loop().time
        began = clock()
        stream = await RacingBackend(network).connect_tcp("host", 80)
        assert isinstance(stream, Stream)
        return stream, clock() - began

    return asyncio.run(asyncio.wait_for(go(), 30.0))


def test_where_the_first_try_stands_there_is_no_second() -> None:
    network = Network(at_once)
    stream, took_s = connect(network)
    assert (stream.number, network.tries) == (1, 1)
    assert took_s < LATE_S


def test_a_late_first_is_passed_by_the_second() -> None:
    network = Network(never, at_once)
    stream, took_s = connect(network)
    assert (stream.number, network.tries) == (2, 2)
    assert LATE_S <= took_s < LATE_S + 1.0
    assert not stream.is_closed


def test_a_refusal_is_an_answer() -> None:
    network = Network(refused)
    with pytest.raises(httpcore.ConnectError, match="refused"):
        connect(network)
    assert network.tries == 1


def test_there_are_never_more_than_so_many_tries() -> None:
    network = Network(never)

    async def go() -> None:
        async with asyncio.timeout(LATE_S * 2**TRIES_MAX):
            await RacingBackend(network).connect_tcp("host", 80)

    with pytest.raises(TimeoutError):
        asyncio.run(go())
    assert network.tries == TRIES_MAX


def test_one_that_comes_too_late_is_closed() -> None:
    together: list[asyncio.Future[None]] = []

    def with_the_other() -> asyncio.Future[None]:
        together.append(asyncio.get_running_loop().create_future())
        if len(together) == 2:
            for standing in together:
                standing.set_result(None)
        return together[-1]

    network = Network(with_the_other)
    stream, _ = connect(network)
    assert network.tries == 2
    assert [one.is_closed for one in network.streams if one is not stream] in ([], [True])
    assert not stream.is_closed
