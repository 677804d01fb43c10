"""The five best classes, and confidences that never sum to more than 1."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker.guesses import top_guesses

LOGITS = hnp.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-20, 20, width=32),
)


@given(LOGITS)
def test_sorted_bounded_and_never_above_one(logits: np.ndarray) -> None:
    classes = [f"class {i}" for i in range(len(logits))]
    guesses = top_guesses(logits, classes)
    confidences = [guess.confidence for guess in guesses]
    assert len(guesses) == min(5, len(classes))
    assert confidences == sorted(confidences, reverse=True)
    assert all(0.0 <= confidence <= 1.0 for confidence in confidences)
    assert sum(confidences) <= 1.0
    assert guesses[0].class_id == int(logits.argmax())
    assert all(guess.label == classes[guess.class_id] for guess in guesses)


def test_equals_the_softmax() -> None:
    logits = np.array([1.0, 3.0, 2.0], dtype=np.float32)
    exponents = np.exp([1.0, 3.0, 2.0])
    guesses = top_guesses(logits, ["a", "b", "c"])
    assert [guess.label for guess in guesses] == ["b", "c", "a"]
    expected = exponents[[1, 2, 0]] / exponents.sum()
    np.testing.assert_allclose([guess.confidence for guess in guesses], expected, rtol=1e-9)


def test_equal_logits_come_in_class_order() -> None:
    guesses = top_guesses(np.zeros(7, dtype=np.float32), list("abcdefg"))
    assert [guess.label for guess in guesses] == list("abcde")
