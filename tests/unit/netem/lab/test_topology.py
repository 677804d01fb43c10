"""Hosts, addresses and links from Python and from TOML."""

from __future__ import annotations

import tomllib

import pytest

from netem.errors import BadSpec
from netem.grammar import parse
from netem.lab.topology import duplex_of, hosts_file, star, topology_of
from netem.spec import Duplex

TOML = """
workers = 3
clients = 1
backend = "userspace"
ttl_s = 60

[link]
delay = "5ms"

[hosts.worker-2]
loss = "10%"

[hosts.worker-3]
delay = "5ms"
egress = { rate = "1mbit" }
"""


def test_a_star_from_toml() -> None:
    topology = topology_of(tomllib.loads(TOML), name="mine")
    assert topology.name == "mine"
    assert [(host.name, host.address) for host in topology.hosts] == [
        ("master", "10.77.0.1"),
        ("worker-1", "10.77.1.1"),
        ("worker-2", "10.77.1.2"),
        ("worker-3", "10.77.1.3"),
        ("client-1", "10.77.2.1"),
    ]
    delay = parse("delay=5ms")
    assert topology.host("master").link == Duplex()
    assert topology.host("worker-1").link == Duplex.both(delay)
    assert topology.host("worker-2").link == Duplex.both(parse("loss=10%"))
    assert topology.host("worker-3").link == Duplex(parse("delay=5ms rate=1mbit"), delay)
    assert topology.host("client-1").link == Duplex.both(delay)
    assert (topology.backend, topology.ttl_s) == ("userspace", 60.0)


def test_an_empty_file_is_a_small_star() -> None:
    assert topology_of({}) == star("star", workers=2)


def test_the_hosts_file_names_every_host() -> None:
    lines = hosts_file(star(workers=1)).splitlines()
    assert lines == [
        *("127.0.0.1 localhost", "::1 localhost"),
        *("10.77.0.1 master", "10.77.1.1 worker-1"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker = 3", "unknown key 'worker'"),
        ("workers = 101", "workers = 101 is out of range: from 0 to 100"),
        ('workers = "3"', "workers = '3' is no whole number"),
        ("workers = true", "no whole number"),
        ("ttl_s = 0", "ttl_s=0.0 is out of range"),
        ('ttl_s = "1h"', "no number of seconds"),
        ('backend = "magic"', "there are auto, tc, userspace"),
        ('name = "My Lab"', "no name of a lab"),
        ('[link]\nloss = "120%"', "no probability"),
        ("link = 3", "is no table"),
        ('[hosts.worker-9]\nloss = "1%"', "a link for worker-9, and the hosts are master"),
    ],
)
def test_what_can_not_be_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said.replace("(", r"\(")):
        topology_of(tomllib.loads(text))


def test_asking_for_a_host_that_is_not_there() -> None:
    with pytest.raises(BadSpec, match="it has master, worker-1"):
        star(workers=1).host("worker-7")


def test_a_direction_differs_from_the_rest_of_its_link() -> None:
    link = duplex_of({"delay": "5ms", "ingress": {"delay": "9ms"}})
    assert link == Duplex(parse("delay=5ms"), parse("delay=9ms"))
