"""How many messages a second one core of the wire carries: `python -m tests.bench.wire_bench`.

A process of its own writes ready-made frames through one TCP connection over
loopback; this process receives and decodes every message. In the rows that
say "sends" this process encodes and sends, and the other one reads. Each row is the
median of several runs with the smallest and the largest, because other work on
the machine moves single runs. The last rows are asyncio's own two protocols
doing the same job without sessions, the ground that the shells stand on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import uvloop

from wire import aio, blocking, codec
from wire import messages as m
from wire.address import TcpAddress
from wire.aio import Admission, Connection
from wire.framing import HEADER, HEADER_BYTES, FrameDecoder
from wire.handshake import ClientHandshake, ServerHandshake
from wire.session import Session

SIZES = {1_000: 100_000, 100_000: 10_000}
"""Bytes of an image, and messages of one run."""
HELLO = m.Hello(versions=[1], role="web", name="bench", incarnation="1")
NONCE = b"n" * 32


def submit(image_bytes: int) -> m.Submit:
    """The message that carries an image from the web to the core."""
    image = m.Upload(name="x.jpg", media_type="image/jpeg", data=bytes(image_bytes))
    return m.Submit(request=1, images=[image])


def admit(hello: m.Hello, address: str = "") -> Admission:
    """Everybody comes in."""
    return Admission(peer="p")


class Figures(NamedTuple):
    """One run. CPU time is this process's alone, and moves less when others work."""

    rate_per_s: float
    cpu_us: float


class Meter:
    """Counts messages from the first to the last of a run."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.seen = 0
        self._first_s = self._last_s = (0.0, 0.0)

    def tick(self) -> bool:
        """One more; true with the last."""
        if self.seen == 0:
            self._first_s = (time.perf_counter(), time.process_time())
        self.seen += 1
        if self.seen == self.expected:
            self._last_s = (time.perf_counter(), time.process_time())
        return self.seen >= self.expected

    def figures(self) -> Figures:
        """Of all but the first message, which starts the clocks."""
        n = self.expected - 1
        wall_s, cpu_s = (
            last - first for first, last in zip(self._first_s, self._last_s, strict=True)
        )
        return Figures(n / wall_s, cpu_s / n * 1e6)


# --- the sending process -------------------------------------------------------------------


def shake(sock: socket.socket, session: Session) -> None:
    """Pass the handshake by hand, to write ready-made bytes afterwards."""
    while True:
        for data in session.data_to_send():
            sock.sendall(data)
        if session.is_open:
            return
        session.receive(sock.recv(65536))


def pour(sock: socket.socket, message: m.Message, n: int) -> None:
    """Write the same frame `n` times in large pieces, and wait for the receiver to hang up."""
    frame = bytes(codec.frame(message))
    per_piece = max(1, 2**18 // len(frame))
    piece = frame * per_piece
    for _ in range(n // per_piece):
        sock.sendall(piece)
    sock.sendall(frame * (n % per_piece))
    sock.recv(1)


def send_as_web(port: int, size: int, with_handshake: bool) -> None:
    """Call the receiver and pour images into it."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        if with_handshake:
            shake(sock, Session(ClientHandshake(None, HELLO, lambda n: NONCE)))
        pour(sock, submit(size), SIZES[size])


def send_as_master(port: int, size: int) -> None:
    """Take the receiver's call (over a socket that we dial, to need no second port)."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        shake(sock, Session(ServerHandshake(None, (1,), lambda n: NONCE, admit)))
        image = m.Image(request=1, name="x.jpg", media_type="image/jpeg", data=bytes(size))
        pour(sock, image, SIZES[size])


def drink(port: int) -> None:
    """Call the sender under test and throw away what it sends, until it hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        shake(sock, Session(ClientHandshake(None, HELLO, lambda n: NONCE)))
        buffer = bytearray(2**18)
        while sock.recv_into(buffer):
            pass


class Sender:
    """The process at the other end, as a context."""

    def __init__(self, target: Callable[..., None], *args: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=target, args=args, daemon=True)

    def __enter__(self) -> None:
        self._process.start()

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.join()


# --- receivers ---------------------------------------------------------------------------------


def encode(size: int) -> Figures:
    """Pure: frames out of one message."""
    message, meter = submit(size), Meter(SIZES[size])
    while not meter.tick():
        codec.frame(message)
    return meter.figures()


def decode(size: int) -> Figures:
    """Pure: decoder and codec, from memory."""
    decoder, meter = FrameDecoder(2**26), Meter(SIZES[size])
    frame = bytes(codec.frame(submit(size)))
    while True:
        for payload in decoder.feed(frame):
            codec.FROM_WEB.decode(payload)
        if meter.tick():
            return meter.figures()


async def shell(size: int) -> Figures:
    """`wire.aio`: the path of an upload into the core."""
    meter, done = Meter(SIZES[size]), asyncio.Event()

    def on_message(connection: Connection, message: m.Message) -> None:
        if meter.tick():
            done.set()

    def on_peer(connection: Connection) -> None:
        connection.on_message = on_message

    async with await aio.serve("127.0.0.1:0", on_peer, token=None, admit=admit) as server:
        with Sender(send_as_web, server.port, size, True):
            await done.wait()
    return meter.figures()


async def sending_shell(size: int) -> Figures:
    """`wire.aio`: the path of an image out of the core; `drain` keeps memory flat."""
    meter = Meter(SIZES[size])
    image = m.Image(request=1, name="x.jpg", media_type="image/jpeg", data=bytes(size))
    peers: asyncio.Queue[Connection] = asyncio.Queue()
    async with await aio.serve("127.0.0.1:0", peers.put_nowait, token=None, admit=admit) as server:
        with Sender(drink, server.port):
            peer = await peers.get()
            while not meter.tick():
                peer.send(image)
                if peer.write_buffer_bytes > 2**20:
                    await peer.drain()
            peer.close("done")
    return meter.figures()


def blocking_shell(size: int) -> Figures:
    """`wire.blocking`: the path of an image into a worker."""
    meter = Meter(SIZES[size])
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Sender(send_as_master, listener.getsockname()[1], size),
    ):
        session = Session(ClientHandshake(None, HELLO, lambda n: NONCE))
        address = TcpAddress("127.0.0.1", 0)
        with blocking.BlockingConnection(listener.accept()[0], session, address, 60) as end:
            end._handshake(time.monotonic() + 10)
            while end.receive() is not None and not meter.tick():
                pass
    return meter.figures()


class BareBuffered(asyncio.BufferedProtocol):
    """Our decoder and codec alone under asyncio's zero-copy protocol."""

    def __init__(self, meter: Meter, done: asyncio.Event) -> None:
        self._decoder, self._meter, self._done = FrameDecoder(2**26), meter, done

    def get_buffer(self, sizehint: int) -> memoryview:
        """Straight from the decoder."""
        return self._decoder.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Decode and count."""
        for payload in self._decoder.buffer_updated(nbytes):
            codec.FROM_WEB.decode(payload)
            if self._meter.tick():
                self._done.set()


class BareStream(asyncio.Protocol):
    """The same job as it is written most often: collect, look, slice."""

    def __init__(self, meter: Meter, done: asyncio.Event) -> None:
        self._buffer, self._meter, self._done = bytearray(), meter, done

    def data_received(self, data: bytes) -> None:
        """Decode and count."""
        self._buffer += data
        while len(self._buffer) >= HEADER_BYTES:
            end = HEADER_BYTES + HEADER.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            codec.FROM_WEB.decode(bytes(self._buffer[HEADER_BYTES:end]))
            del self._buffer[:end]
            if self._meter.tick():
                self._done.set()


async def bare(make: type[BareBuffered] | type[BareStream], size: int) -> Figures:
    """One of asyncio's protocols."""
    meter, done = Meter(SIZES[size]), asyncio.Event()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: make(meter, done), "127.0.0.1", 0)
    with Sender(send_as_web, server.sockets[0].getsockname()[1], size, False):
        await done.wait()
    server.close()
    return meter.figures()


ROWS: dict[str, Callable[[int], Figures]] = {
    "encode, pure": encode,
    "decode, pure": decode,
    "wire.aio, uvloop": lambda size: uvloop.run(shell(size)),
    "wire.aio, asyncio": lambda size: asyncio.run(shell(size)),
    "wire.aio sends, uvloop": lambda size: uvloop.run(sending_shell(size)),
    "wire.aio sends, asyncio": lambda size: asyncio.run(sending_shell(size)),
    "wire.blocking": blocking_shell,
    "bare BufferedProtocol, uvloop": lambda size: uvloop.run(bare(BareBuffered, size)),
    "bare BufferedProtocol, asyncio": lambda size: asyncio.run(bare(BareBuffered, size)),
    "bare Protocol, asyncio": lambda size: asyncio.run(bare(BareStream, size)),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Messages a second through the wire.")
    parser.add_argument("--runs", type=int, default=5)
    runs: int = parser.parse_args().runs
    logging.getLogger("lookout.wire").setLevel(logging.ERROR)  # open mode is meant here
    print(f"one connection, median [smallest, largest] of {runs} runs; CPU of this process\n")
    print(f"{'':32}" + "".join(f"{f'{size // 1000} kB':>46}" for size in SIZES))
    for name, measure in ROWS.items():
        cells = [[measure(size) for _ in range(runs)] for size in SIZES]
        print(f"{name:32}" + "".join(f"{cell(runs_of):>46}" for runs_of in cells), flush=True)


def cell(figures: list[Figures]) -> str:
    """Rate with its spread, and median CPU time a message."""
    rates = sorted(f.rate_per_s for f in figures)
    cpu_us = statistics.median(f.cpu_us for f in figures)
    middle = statistics.median(rates)
    return f"{middle:,.0f}/s [{rates[0]:,.0f}, {rates[-1]:,.0f}] {cpu_us:.1f} us"


if __name__ == "__main__":
    main()
