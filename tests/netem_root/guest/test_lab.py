"""Labs inside the kernel that has `sch_netem`: by tc on veth pairs, and beside the emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from netem.errors import MissingFeature
from netem.grammar import parse
from netem.lab import Lab, star
from netem.spec import CUT, Duplex, LinkSpec
from tests.netem_root.labs import in_host, lab_name, peer, start_peer

# Asked for, and taken: this kernel has what `tc` needs.
BACKENDS = {"auto": "tc", "userspace": "userspace"}
TICK_MS = 10.0


@pytest.fixture(scope="module", params=BACKENDS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A master and a worker, joined by one backend."""
    with Lab.up(star(lab_name(request.param), workers=1, backend=request.param)) as one:
        assert one.record.backend == BACKENDS[request.param]
        # Before packets are lost: a lost ARP request would look like more (see `Pair`).
        assert send(one, 1)["packets"] == 1
        yield one


def send(lab: Lab, count: int, gap_us: int = 500) -> dict[str, Any]:
    """Datagrams from the worker to the master: what arrived."""
    sink = start_peer(lab, "master", "datagram-sink")
    in_host(lab, "worker-1", *peer("datagrams", "master", str(count), str(gap_us)))
    said, _ = sink.communicate(timeout=60)
    found: dict[str, Any] = json.loads(said)
    return found


def egress(text: str) -> Duplex:
    """A link that is perfect towards the worker."""
    return Duplex(egress=parse(text))


def test_loss_is_as_requested_and_as_counted(lab: Lab) -> None:
    lab.set("worker-1", egress("loss=20%"))
    got = send(lab, 1500)
    counters = lab.status()["worker-1"].reading.egress.counters
    assert abs(got["packets"] / 1500 - 0.8) < 0.05
    # On veth there is ARP as well.
    assert abs(counters.delivered_packets - got["packets"]) < 10
    assert abs(counters.dropped_packets - (1500 - got["packets"])) < 10


def test_each_direction_is_its_own(lab: Lab) -> None:
    lab.set("worker-1", Duplex(ingress=parse("delay=50ms")))
    # The quickest show the link: the others may wait for this kernel's one processor.
    assert send(lab, 100)["p1_ms"] < 25.0
    lab.set("worker-1", egress("delay=50ms"))
    got = send(lab, 100)
    assert 50.0 <= got["p1_ms"] < 50.0 + TICK_MS
    state = lab.status()["worker-1"]
    assert state.reading.duplex == state.requested == egress("delay=50ms")


def test_a_cut_and_a_heal(lab: Lab) -> None:
    link = Duplex.both(parse("delay=2ms"))
    lab.set("worker-1", link)
    lab.cut("worker-1")
    assert lab.status()["worker-1"].reading.duplex == Duplex.both(CUT)
    in_host(lab, "worker-1", *peer("datagrams", "master", "20", "500"))
    assert lab.status()["worker-1"].reading.egress.counters.delivered_packets == 0
    lab.heal("worker-1")
    assert lab.status()["worker-1"].reading.duplex == link
    assert send(lab, 50)["packets"] == 50


def test_a_perfect_link_counts_as_well(lab: Lab) -> None:
    lab.set("worker-1", Duplex())
    assert send(lab, 100)["packets"] == 100
    reading = lab.status()["worker-1"].reading
    assert reading.egress.spec == LinkSpec()
    assert 100 <= reading.egress.counters.delivered_packets < 110


def test_what_can_not_be_done_changes_nothing(lab: Lab) -> None:
    before, wanted = egress("delay=3ms"), Duplex(ingress=parse("delay=5ms seed=7"))
    lab.set("worker-1", before)
    # The kernel's netem has seeds from Linux 6.6 on; the emulator always has.
    if lab.record.backend == "userspace":
        lab.set("worker-1", wanted)
        before = wanted
    else:
        with pytest.raises(MissingFeature, match="seed"):
            lab.set("worker-1", wanted)
    state = lab.status()["worker-1"]
    assert state.requested == state.reading.duplex == before
