"""The kernel's numbers of real connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.shared import wait_until
from wire.tcpinfo import read_tcp_info, unacknowledged_bytes


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection; the second takes little before it reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def test_segments_of_a_loopback_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    near.sendall(b"x" * 1000)
    wait_until(lambda: unacknowledged_bytes(near) == 0, 5.0, "the acknowledgement")
    info = read_tcp_info(near)
    assert info is not None
    assert info.segments >= 1
    assert info.repeats == 0
    assert 0 < info.rtt_ms < 1000


def test_a_receiver_that_does_not_read_leaves_bytes_unacknowledged(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, _ = pair
    near.setblocking(False)
    near.send(bytes(1_000_000))
    assert unacknowledged_bytes(near) > 10_000


def test_a_unix_socket_and_a_closed_one_say_nothing() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert read_tcp_info(sock) is None
        assert unacknowledged_bytes(sock) == 0
    with socket.socket() as sock:
        sock.close()
        assert read_tcp_info(sock) is None
        assert unacknowledged_bytes(sock) == 0
    assert read_tcp_info(None) is None
