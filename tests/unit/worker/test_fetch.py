"""Weights in chunks: the window, the order, and what ends a fetch."""

from __future__ import annotations

import threading

import pytest

from wire import messages as m
from wire.card import Card, Preprocessing
from wire.errors import ConnectionClosed, EnvironmentFault, PeerFault
from worker.fetch import CHUNK_BYTES, Fetcher

DATA = bytes(range(251)) * 20_000  # 4.8 slices
CARD = Card(
    id="m",
    architecture="squeezenet1_1",
    classes=["a"],
    preprocessing=Preprocessing(resize_px=8, crop_px=8),
    sha256="a" * 64,
    size_bytes=len(DATA),
)


class Master:
    """Answers requests as they come, or holds them back."""

    def __init__(self) -> None:
        self.fetcher = Fetcher(self.ask, chunk_timeout_s=20.0)
        self.asked: list[m.FetchWeights] = []
        self.linked = True
        self.holds = False
        self.slice_bytes = CHUNK_BYTES

    def ask(self, message: m.Message) -> bool:
        assert isinstance(message, m.FetchWeights)
        self.asked.append(message)
        if self.linked and not self.holds:
            self.answer(message)
        return self.linked

    def answer(self, wanted: m.FetchWeights, **changes: object) -> None:
        fields: dict[str, object] = {
            "sha256": wanted.sha256,
            "offset": wanted.offset,
            "size_bytes": len(DATA),
            "data": DATA[wanted.offset :][: min(wanted.length, self.slice_bytes)],
        }
        self.fetcher.received(m.WeightsChunk(**{**fields, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", [0, 1, CHUNK_BYTES, len(DATA) - 1, len(DATA)])
def test_yields_the_file_from_any_offset(offset: int) -> None:
    master = Master()
    assert b"".join(master.fetcher.chunks(CARD, offset)) == DATA[offset:]
    assert all(1 <= asked.length <= CHUNK_BYTES for asked in master.asked)


def test_asks_for_one_slice_at_a_time() -> None:
    master = Master()
    chunks = master.fetcher.chunks(CARD, 0)
    next(chunks)
    assert len(master.asked) == 1


def test_takes_slices_as_short_as_the_master_likes() -> None:
    master = Master()
    master.slice_bytes = 777_777
    assert b"".join(master.fetcher.chunks(CARD, 5)) == DATA[5:]


def test_ends_when_there_is_no_connection() -> None:
    master = Master()
    master.linked = False
    with pytest.raises(ConnectionClosed):
        next(master.fetcher.chunks(CARD, 0))


def test_ends_when_told_to_give_up_while_it_waits() -> None:
    master = Master()
    master.holds = True
    failed = threading.Event()

    def fetch() -> None:
        with pytest.raises(ConnectionClosed, match="given up"):
            next(master.fetcher.chunks(CARD, 0))
        failed.set()

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    while len(master.asked) < 1:
        assert not failed.wait(0.001)
    master.fetcher.give_up()
    assert failed.wait(10.0)


def test_answers_to_a_fetch_given_up_are_passed_over() -> None:
    master = Master()
    master.holds = True
    chunks = master.fetcher.chunks(CARD, 0)
    threading.Timer(0.0, master.fetcher.give_up).start()
    with pytest.raises(ConnectionClosed):
        next(chunks)
    master.holds = False
    master.fetcher.begin()
    again = master.fetcher.chunks(CARD, CHUNK_BYTES)
    late = master.asked[0]
    first_ask = master.ask

    def ask(message: m.Message) -> bool:
        if len(master.asked) == 1:
            master.answer(late)
        return first_ask(message)

    master.fetcher._ask = ask
    assert b"".join(again) == DATA[CHUNK_BYTES:]


@pytest.mark.parametrize(
    "changes", [{"data": b""}, {"data": DATA[: CHUNK_BYTES + 1]}, {"size_bytes": 7}]
)
def test_an_answer_that_does_not_fit_is_the_masters_fault(changes: dict[str, object]) -> None:
    master = Master()
    master.holds = True
    chunks = master.fetcher.chunks(CARD, 0)
    asker = threading.Thread(target=lambda: _wait_and_answer(master, changes), daemon=True)
    asker.start()
    with pytest.raises(PeerFault, match="did the file change"):
        next(chunks)


def _wait_and_answer(master: Master, changes: dict[str, object]) -> None:
    pause = threading.Event()
    while len(master.asked) < 1:
        pause.wait(0.001)
    master.answer(master.asked[0], **changes)


def test_a_silent_master_does_not_hold_it_for_ever() -> None:
    fetcher = Fetcher(lambda message: True, chunk_timeout_s=0.01)
    with pytest.raises(EnvironmentFault, match=r"0\.01 s"):
        next(fetcher.chunks(CARD, 0))
