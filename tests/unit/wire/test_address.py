"""Addresses as people write them."""

from __future__ import annotations

import pytest

from wire.address import Address, TcpAddress, UnixAddress, format_address, parse_address
from wire.errors import EnvironmentFault


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", TcpAddress("10.0.0.1", 6550)),
        ("10.0.0.1:7", TcpAddress("10.0.0.1", 7)),
        ("node-3.lab:0", TcpAddress("node-3.lab", 0)),
        ("localhost:65535", TcpAddress("localhost", 65535)),
        ("::1", TcpAddress("::1", 6550)),
        ("[::1]", TcpAddress("::1", 6550)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("fe80::1%eth0", TcpAddress("fe80::1%eth0", 6550)),
        ("unix:/run/lookout.sock", UnixAddress("/run/lookout.sock")),
        ("unix:relative", UnixAddress("relative")),
    ],
)
def test_what_is_understood(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(format_address(address)) == address


def test_the_default_port_is_the_callers() -> None:
    assert parse_address("a", default_port=80) == TcpAddress("a", 80)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "host is missing"),
        (":80", "host is missing"),
        ("a:", "port ''"),
        ("a:b", "port 'b'"),
        ("a:-1", "port '-1'"),
        ("a:65536", "port '65536'"),
        ("a:٣", "port"),
        ("http://a:80", "brackets"),
        ("http://a", "port"),
        ("user@a", "characters"),
        ("a b", "characters"),
        ("::1:80:x", "brackets"),
        ("[::1", "brackets"),
        ("[a]:80", "brackets"),
        ("[::1]80", "brackets"),
        ("unix:", "path"),
        ("unix:/" + "x" * 107, "107 bytes"),
    ],
)
def test_what_is_not_says_why(text: str, words: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        parse_address(text)
    assert caught.value.code == "bad_address"
    assert words in caught.value.reason
