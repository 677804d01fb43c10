"""What `--engine auto` tries, takes, remembers, and never does twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes.weights import lively_weights
from tests.shared import REPOSITORY
from wire.card import Card
from wire.errors import EnvironmentFault
from worker import calibrate, selection
from worker.agreement import AGREEMENT_MIN, agreement, same_best
from worker.calibrate import BUDGET_S, best_of, choose
from worker.choice import Choice, Trial, Wish, choice_key, recall, remember
from worker.engine import ENGINE_MISSING, Precision, capabilities
from worker.models import card_for_torchvision
from worker.openvino_import import import_openvino
from worker.scenes import dead_leaves
from worker.selection import Selection, SelectionConfig, allowed

SMALL = "squeezenet1_1"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Card, Path]:
    path = lively_weights(SMALL, tmp_path_factory.mktemp("weights") / "s.pth")
    return card_for_torchvision(SMALL, path), path


def trial(rate_per_s: float, **fields: object) -> Trial:
    plain = {
        "engine": "openvino",
        "precision": "bf16",
        "threads": 2,
        "lanes": 1,
        "batch": 4,
        "agreement": 1.0,
    }
    return msgspec.convert({**plain, "rate_per_s": rate_per_s, **fields}, Trial)


def test_what_is_named_is_not_measured() -> None:
    assert allowed("torch", "fp32") == [("torch", Precision.FP32)]
    assert allowed("openvino", "int8") == [("openvino", Precision.INT8)]
    assert allowed("auto", "int8") == [("openvino", Precision.INT8)]


def test_auto_leaves_out_int8_and_begins_with_the_likely_fastest() -> None:
    kinds = allowed("auto", "auto")
    assert kinds[0] == (
        "openvino",
        next(p for p in reversed(capabilities("openvino")) if p != "int8"),
    )
    assert {name for name, _ in kinds} == {"torch", "openvino"}
    assert all(precision is not Precision.INT8 for _, precision in kinds)
    assert {precision for _, precision in allowed("auto", "fp32")} == {Precision.FP32}


def test_the_fastest_that_agrees_is_taken() -> None:
    strays = trial(300.0, agreement=0.99)
    assert best_of([trial(90.0), strays, trial(100.0, engine="torch")]).engine == "torch"


def test_lanes_and_batches_that_gain_nothing_are_not_taken() -> None:
    assert best_of([trial(101.0, batch=8), trial(100.0, batch=1)]).batch == 1
    assert best_of([trial(120.0, batch=8), trial(100.0, batch=1)]).batch == 8
    assert best_of([trial(101.0, lanes=2), trial(100.0)]).lanes == 1


def test_none_that_agrees_is_said() -> None:
    with pytest.raises(EnvironmentFault, match="--precision fp32"):
        best_of([trial(300.0, agreement=0.5)])


def test_ties_are_no_disagreement() -> None:
    exact = np.log(np.array([[0.498, 0.492, 0.01], [0.60, 0.20, 0.20]], dtype=np.float32))
    found = exact[:, [1, 0, 2]]
    assert same_best(exact, found) == 0.0
    assert agreement(exact, found) == 0.5


def test_scenes_look_the_same_every_time_and_each_unlike_the_next() -> None:
    first = dead_leaves(2, 64, np.random.default_rng(3))
    assert first.shape == (2, 64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, dead_leaves(2, 64, np.random.default_rng(3)))
    assert (first[0] != first[1]).mean() > 0.5
    assert first.std() > 20


def test_measures_every_kind_and_takes_the_fastest(
    model: tuple[Card, Path], tmp_path: Path
) -> None:
    kinds = allowed("auto", "auto")
    found = choose(*model, Wish(kinds=kinds, threads=1, batch_max=2), tmp_path)
    assert found.best in found.trials
    batches: dict[tuple[str, str], list[int]] = {}
    for trial in found.trials:
        batches.setdefault((trial.engine, trial.precision), []).append(trial.batch)
    assert list(batches) == kinds[: len(batches)]
    # What the others are held against is not loaded again where its first round was too slow.
    slow = batches.pop(("torch", "fp32"), [1, 2])
    assert slow in ([1, 2], [2])
    assert all(sizes == [1, 2] for sizes in batches.values())
    assert all(t.rate_per_s > 0 and 0.9 <= t.agreement <= 1.0 for t in found.trials)
    agreeing = [t for t in found.trials if t.agreement >= AGREEMENT_MIN]
    assert found.best in agreeing
    assert found.best.rate_per_s * 1.03 >= max(t.rate_per_s for t in agreeing)
    assert BUDGET_S < 10


def test_the_first_engine_is_tried_in_every_precision_however_long_it_takes(
    model: tuple[Card, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "BUDGET_S", 0.0)
    kinds = allowed("auto", "auto")
    found = choose(*model, Wish(kinds=kinds, threads=1, batch_max=1), tmp_path)
    tried = [(t.engine, t.precision) for t in found.trials]
    assert tried == [kind for kind in kinds if kind[0] == "openvino"]


def test_time_that_is_up_ends_nothing_before_an_engine_agrees(
    model: tuple[Card, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "BUDGET_S", 0.0)
    answers = iter([0.5])  # the first arrangement turns out to be wrong, the others are judged

    def judge(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
        return next(answers, None) or agreement(exact, found)

    monkeypatch.setattr(calibrate, "agreement", judge)
    kinds = [("openvino", Precision.FP32), ("torch", Precision.FP32)]
    found = choose(*model, Wish(kinds=kinds, threads=1, batch_max=1), tmp_path)
    assert [t.agreement for t in found.trials] == [0.5, 1.0]
    assert found.best.engine == "torch"


def test_auto_does_without_an_engine_that_is_not_installed(
    model: tuple[Card, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Python does where a package is absent: importing it raises.
    monkeypatch.setitem(sys.modules, "openvino", None)
    import_openvino.cache_clear()
    try:
        wish = Wish(kinds=allowed("auto", "auto"), threads=1, batch_max=1)
        assert choose(*model, wish, tmp_path).best.engine == "torch"
        only = Wish(kinds=[("openvino", Precision.FP32)], threads=1, batch_max=1)
        with pytest.raises(EnvironmentFault, match="install lookout") as caught:
            choose(*model, only, tmp_path)
        assert caught.value.code == ENGINE_MISSING
    finally:
        import_openvino.cache_clear()


def test_a_choice_is_measured_once_and_then_needs_no_torch(
    model: tuple[Card, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Wish] = []

    def measure(card: Card, weights: Path, wish: Wish, cache: Path) -> Choice:
        calls.append(wish)
        best = trial(1.0, precision="fp32", threads=1, batch=2)
        return Choice(best=best, trials=[best])

    monkeypatch.setattr(selection, "choose_in_child", measure)
    config = SelectionConfig("auto", "auto", 1, 2, tmp_path)
    for _ in range(2):
        assert Selection(config).prepare(*model).describe().startswith("openvino ")
    assert len(calls) == 1
    assert _loaded_afresh(model, tmp_path) == "openvino True False False"


def _loaded_afresh(model: tuple[Card, Path], cache: Path) -> str:
    """Engine; whether it answers; whether torch and OpenVINO's telemetry were imported."""
    card = cache / "card.json"
    card.write_bytes(msgspec.json.encode(model[0]))
    code = f"""
import sys, msgspec, numpy
from pathlib import Path
from wire.card import Card
from worker.selection import Selection, SelectionConfig
card = msgspec.json.decode(Path({str(card)!r}).read_bytes(), type=Card)
config = SelectionConfig("auto", "auto", 1, 2, Path({str(cache)!r}))
engine = Selection(config).prepare(card, Path({str(model[1])!r}))
logits = engine.infer(numpy.zeros((1, 224, 224, 3), numpy.uint8))
telemetry = any(m and "openvino_telemetry" in n for n, m in sys.modules.items())
print(engine.describe().split()[0], logits.shape == (1, 1000), "torch" in sys.modules, telemetry)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_choice_survives_on_disk_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    assert recall(path) is None
    choice = Choice(best=trial(2.0), trials=[trial(2.0), trial(1.0)])
    remember(path, choice)
    assert recall(path) == choice
    path.write_bytes(path.read_bytes()[:-9])
    assert recall(path) is None


def test_other_weights_threads_or_processors_are_another_choice(
    model: tuple[Card, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = Wish(kinds=allowed("auto", "auto"), threads=1, batch_max=4)
    card = model[0]
    keys = {
        choice_key(card, wish),
        choice_key(msgspec.structs.replace(card, sha256="d" * 64), wish),
        choice_key(card, msgspec.structs.replace(wish, threads=2)),
    }
    monkeypatch.setattr("worker.machine.cpu_model", lambda: "another")
    keys.add(choice_key(card, wish))
    assert len(keys) == 4
