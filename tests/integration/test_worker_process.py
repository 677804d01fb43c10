"""`worker join` as a process of its own, against a master that the test plays by hand."""

from __future__ import annotations

import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.cluster import PLAIN_ENGINE
from tests.fakes.master import FakeMaster, FakePeer
from tests.fakes.process import Process
from tests.fakes.weights import random_weights
from tests.shared import REPOSITORY, make_jpeg
from wire import messages as m
from wire.card import Card
from worker.models import card_for_torchvision

pytestmark = pytest.mark.integration
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights("squeezenet1_1", tmp_path_factory.mktemp("weights") / "s.pth")


@pytest.fixture(scope="module")
def card(weights: Path) -> Card:
    return card_for_torchvision("squeezenet1_1", weights)


@pytest.fixture
def master(weights: Path) -> Iterator[FakeMaster]:
    with FakeMaster(weights=weights) as one:
        yield one


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start `worker join` with the right token; it is ended with the test."""
    made: list[Process] = []

    def start(address: str, *args: str, token: str = "secret", **env: str) -> Process:
        process = Process(
            f"worker{len(made)}",
            [sys.executable, "-m", "worker", "join", address, *PLAIN_ENGINE, *args],
            log_path=tmp_path / f"worker{len(made)}.log",
            env={**_inherited(), "HOME": str(tmp_path), "LOOKOUT_TOKEN": token, **env},
            cwd=tmp_path,
        )
        made.append(process)
        return process

    yield start
    for process in made:
        process.finish(time.monotonic() + 5.0)
        print(process.log())


def _inherited() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOOKOUT_", "XDG_"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def assign(job: int, image: bytes | None = None, token: int = 1) -> m.Assign:
    data = make_jpeg(job) if image is None else image
    return m.Assign(job=f"j{job}", token=token, attempt=1, name=f"{job}.jpg", image=data)


def make_ready(peer: FakePeer, card: Card) -> m.Ready:
    peer.send(m.Model(card=card))
    return peer.expect(m.Ready, TIMEOUT_S)


def test_joins_fetches_classifies_and_leaves(
    master: FakeMaster, card: Card, join: Callable[..., Process]
) -> None:
    worker = join(master.address, "--threads", "1")
    peer = master.accept()
    assert peer.hello.role == "worker"
    ready = make_ready(peer, card)
    assert ready.model == card.id
    assert ready.engine.startswith("torch")
    assert ready.slots == peer.hello.slots
    count = ready.slots
    for job in range(count):
        peer.send(assign(job))
    results = peer.results(count, TIMEOUT_S)
    assert all(r.model == card.id and len(r.top5) == 5 for r in results.values())
    worker.term()
    assert peer.expect(m.Draining).reason == "SIGTERM received"
    peer.expect(m.Goodbye)
    assert worker.wait(TIMEOUT_S) == 0


def test_started_comes_before_the_death_that_it_explains(
    master: FakeMaster, card: Card, join: Callable[..., Process]
) -> None:
    worker = join(master.address, "--enable-fault-hooks", LOOKOUT_FAULTS="crash-on=POISON")
    peer = master.accept()
    make_ready(peer, card)
    peer.send(assign(1, make_jpeg(1) + b"POISON"))
    assert peer.expect(m.Started).leases == [m.LeaseRef(job="j1", token=1)]
    peer.expect_end()
    assert worker.wait(TIMEOUT_S) == -signal.SIGKILL


def test_reconnects_and_delivers_what_was_not_answered(
    master: FakeMaster, card: Card, join: Callable[..., Process]
) -> None:
    join(master.address, "--batch", "1", "--slots", "1")
    peer = master.accept()
    make_ready(peer, card)
    peer.send(assign(1))
    peer.expect(m.Started)
    first = peer.expect(m.Result)
    cut_s = time.monotonic()
    peer.close()
    again = master.accept()
    assert time.monotonic() - cut_s < 5.0
    assert again.hello.incarnation == peer.hello.incarnation
    assert again.expect(m.Result) == first, "before Ready, and before the model is offered"
    again.send(m.Accepted(job="j1", token=1))
    offered_s = time.monotonic()
    make_ready(again, card)
    assert time.monotonic() - offered_s < 1.0, "the model is still in memory"
    again.send(assign(2, token=2))
    assert set(again.results(1)) == {"j2"}


def test_a_broken_download_goes_on_where_it_stopped(
    master: FakeMaster, card: Card, join: Callable[..., Process], tmp_path: Path
) -> None:
    join(master.address, "--cache", str(tmp_path / "cache"))
    peer = master.accept()
    peer.chunks_left = 1
    peer.send(m.Model(card=card))
    peer.expect_end()
    again = master.accept()
    make_ready(again, card)
    assert master.offsets.count(0) == 1, "what had come was not fetched again"
    assert (tmp_path / "cache" / "weights" / f"{card.sha256}.weights").exists()


def test_a_hanging_decoder_costs_one_job_and_the_process_replaces_itself(
    master: FakeMaster, card: Card, join: Callable[..., Process]
) -> None:
    args = ("--enable-fault-hooks", "--decode-timeout", "0.5", "--name", "phoenix")
    worker = join(master.address, *args, LOOKOUT_FAULTS="hang-on=HANG")
    peer = master.accept()
    make_ready(peer, card)
    peer.send(assign(1, make_jpeg(1) + b"HANG"), assign(2))
    results = peer.results(2, TIMEOUT_S)
    fault = results["j1"].fault
    assert fault is not None
    assert (fault.code, fault.retryable) == ("decode_timeout", False)
    assert results["j2"].fault is None
    assert "stuck" in peer.expect(m.Draining).reason
    peer.expect(m.Goodbye)
    again = master.accept()
    assert again.hello.name == "phoenix"
    assert again.hello.incarnation != peer.hello.incarnation
    assert worker.alive
    make_ready(again, card)
    again.send(assign(3))
    assert again.results(1)["j3"].fault is None


def test_a_stopped_process_works_again_when_it_is_continued(
    card: Card, weights: Path, join: Callable[..., Process]
) -> None:
    with FakeMaster(weights=weights, lease_ttl_s=1.0) as master:
        worker = join(master.address, "--engine", "null", "--enable-fault-hooks")
        peer = master.accept()
        make_ready(peer, card)
        worker.sigstop()
        seen = len(peer.heartbeats)
        stopped_s = time.monotonic()
        peer.send(*(assign(job) for job in range(3)))
        with pytest.raises(AssertionError):
            peer.wait_heartbeats(seen + 5, timeout_s=2.0)
        assert time.monotonic() - stopped_s >= 2.0
        worker.sigcont()
        assert len(peer.results(3, TIMEOUT_S)) == 3, "the connection outlived the stop"


def test_a_second_signal_ends_it_at_once(
    master: FakeMaster, card: Card, join: Callable[..., Process]
) -> None:
    worker = join(master.address, "--enable-fault-hooks", LOOKOUT_FAULTS="hang-on=HANG")
    peer = master.accept()
    make_ready(peer, card)
    peer.send(assign(1, b"HANG"))
    peer.expect(m.Started)
    worker.term()
    peer.expect(m.Draining)
    worker.term()
    assert worker.wait(5.0) == 128 + signal.SIGTERM


def test_heartbeats_go_on_while_it_works(
    master: FakeMaster, card: Card, join: Callable[..., Process]
) -> None:
    join(master.address, "--enable-fault-hooks", LOOKOUT_FAULTS="delay-ms=1500")
    peer = master.accept()
    make_ready(peer, card)
    peer.send(assign(1))
    peer.expect(m.Started)
    seen = len(peer.heartbeats)
    beats = peer.wait_heartbeats(seen + 8, timeout_s=10.0)
    assert any(beat.executing == 1 for beat in beats[seen:])
    peer.results(1)


def test_a_wrong_token_ends_the_first_join(
    master: FakeMaster, join: Callable[..., Process]
) -> None:
    worker = join(master.address, token="wrong")
    master.reject_one()
    worker.wait_line(r"^worker: the join token is not this master's", timeout_s=TIMEOUT_S)
    assert worker.wait(TIMEOUT_S) == 2


def test_an_absent_master_is_waited_for(join: Callable[..., Process], weights: Path) -> None:
    with FakeMaster(weights=weights) as master:
        port = master.port
    worker = join(f"127.0.0.1:{port}")
    worker.wait_line(r"join_failed code=unreachable .*is it running there", timeout_s=TIMEOUT_S)
    assert worker.alive


def test_the_null_engine_answers_at_once_without_weights(
    master: FakeMaster, card: Card, join: Callable[..., Process]
) -> None:
    master.weights = None
    join(master.address, "--engine", "null", "--enable-fault-hooks", "--slots", "64")
    peer = master.accept()
    assert make_ready(peer, card).engine == "null"
    peer.send(*(assign(job, b"anything") for job in range(64)))
    results = peer.results(64)
    number = zlib.crc32(b"anything") % len(card.classes)
    assert {r.top5[0].label for r in results.values()} == {card.classes[number]}


def test_weights_that_do_not_fit_are_reported_and_a_later_model_is_served(
    master: FakeMaster, card: Card, join: Callable[..., Process]
) -> None:
    import msgspec

    join(master.address)
    peer = master.accept()
    peer.send(m.Model(card=msgspec.structs.replace(card, architecture="mobilenet_v2")))
    fault = peer.expect(m.ModelFault, TIMEOUT_S)
    assert fault.model == card.id
    assert make_ready(peer, card).model == card.id
