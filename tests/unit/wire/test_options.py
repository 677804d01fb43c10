"""Socket options take hold on real sockets, and what is not there is left out."""

from __future__ import annotations

import socket
from pathlib import Path

from wire import options


def test_a_tcp_socket_gets_them_and_says_so() -> None:
    with socket.socket() as sock:
        taken = options.apply_options(sock)
        assert taken["TCP_NODELAY"] == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        user_timeout_ms = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert user_timeout_ms == options.USER_TIMEOUT_MS == taken["TCP_USER_TIMEOUT"]


def test_bbr_is_set_exactly_where_the_kernel_allows_it() -> None:
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    with socket.socket() as sock:
        taken = options.apply_options(sock)
        algorithm = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    if "bbr" in allowed:
        assert taken["TCP_CONGESTION"] == "bbr"
    if "bbr" not in available:
        assert "TCP_CONGESTION" not in taken
    assert (taken.get("TCP_CONGESTION") == "bbr") == algorithm.startswith(b"bbr")


def test_a_unix_socket_gets_none() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert options.apply_options(sock) == {}


class _Refusing:
    family = socket.AF_INET

    def setsockopt(self, level: int, optname: int, value: int | bytes, /) -> None:
        if value == options.CONGESTION:
            raise PermissionError("not for you")


def test_what_the_kernel_refuses_is_left_out() -> None:
    taken = options.apply_options(_Refusing())
    assert "TCP_CONGESTION" not in taken
    assert "TCP_NODELAY" in taken
