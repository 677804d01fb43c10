"""The store's futures: resolved once, told once, waited for from any thread."""

from __future__ import annotations

import threading

import pytest

from master.store.write import Write


def test_callbacks_are_called_once_each_before_and_after() -> None:
    told: list[str] = []
    write: Write[int] = Write()
    write.add_done_callback(lambda _: told.append("early"))
    write.set_result(7)
    write.add_done_callback(lambda done: told.append(f"late {done.result(0)}"))
    assert told == ["early", "late 7"]


def test_a_waiting_thread_is_woken_and_an_error_is_raised_there() -> None:
    write: Write[int] = Write()
    with pytest.raises(TimeoutError):
        write.result(0)
    threading.Timer(0.01, write.set_exception, [ValueError("no room")]).start()
    with pytest.raises(ValueError, match="no room"):
        write.result(10)
    assert isinstance(write.exception(0), ValueError)


def test_threads_that_race_with_the_end_are_told_exactly_once() -> None:
    for _ in range(300):
        write: Write[int] = Write()
        told: list[int] = []
        gate = threading.Barrier(3)

        def ask(number: int, write: Write[int] = write, told: list[int] = told,
                gate: threading.Barrier = gate) -> None:  # fmt: skip
            gate.wait()
            write.add_done_callback(lambda _: told.append(number))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        gate.wait()
        write.set_result(1)
        for thread in threads:
            thread.join()
        assert sorted(told) == [0, 1]


def test_a_callback_that_raises_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    write: Write[int] = Write()
    told: list[int] = []
    write.add_done_callback(lambda _: 1 // 0)
    write.add_done_callback(lambda done: told.append(done.result(0)))
    write.set_result(3)
    assert told == [3]
    assert "store_callback_failed" in caplog.text
