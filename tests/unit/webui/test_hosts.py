"""Who may call."""

from __future__ import annotations

import pytest

from webui.hosts import check_host, check_origin, own_names
from webui.problems import Problem

NAMES = frozenset({"localhost", "lab-7", "lookout.example"})


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST:80",
        "127.0.0.1:8080",
        "192.0.2.7",
        "[::1]:8080",
        "[fe80::1%25eth0]:80",
        "lab-7:80",
        "lookout.example.",
        "page.localhost:8080",
    ],
)
def test_own_names_and_addresses_pass(host: str) -> None:
    check_host(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "lab-7.evil.example:80",
        "notlocalhost",
        "2130706433.example",
    ],
)
def test_a_foreign_name_is_rebinding(host: str) -> None:
    with pytest.raises(Problem) as refused:
        check_host(host, NAMES)
    assert refused.value.code == "host_not_allowed"
    assert "--allow-host" in refused.value.detail


@pytest.mark.parametrize("host", [None, "", "a/b", "user@localhost", "localhost:port", "[::1"])
def test_an_unreadable_host_is_a_bad_request(host: str | None) -> None:
    with pytest.raises(Problem) as refused:
        check_host(host, NAMES)
    assert refused.value.status == 400


def test_own_names_has_localhost() -> None:
    assert "localhost" in own_names()


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "lab-7:8080"},
        {"host": "lab-7:8080", "origin": "http://lab-7:8080"},
        {"host": "lab-7", "origin": "https://lab-7", "sec-fetch-site": "same-origin"},
        {"host": "lab-7", "sec-fetch-site": "none"},
    ],
)
def test_programs_and_the_own_page_may_change_things(headers: dict[str, str]) -> None:
    check_origin("POST", headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "lab-7:8080", "origin": "http://evil.example"},
        {"host": "lab-7:8080", "origin": "http://lab-7:9090"},
        {"host": "lab-7", "origin": "null"},
        {"host": "lab-7", "sec-fetch-site": "cross-site"},
        {"host": "lab-7", "sec-fetch-site": "same-site"},
    ],
)
def test_another_site_may_not_change_things(headers: dict[str, str]) -> None:
    for method in ("POST", "DELETE", "PUT"):
        with pytest.raises(Problem) as refused:
            check_origin(method, headers)
        assert refused.value.code == "cross_origin"
    check_origin("GET", headers)
    with pytest.raises(Problem):
        check_origin("GET", headers, guard_reads=True)
