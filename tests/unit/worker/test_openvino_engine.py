"""OpenVINO: nothing phones home, what is converted is kept, what is damaged is made anew."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.weights import lively_weights
from tests.house import package_sources
from tests.imports import Source
from tests.shared import REPOSITORY
from wire.card import Card
from wire.errors import EnvironmentFault
from worker import child, openvino_engine
from worker.compiled import MODEL, CompiledCache, ingredients, key_of
from worker.engine import EngineConfig, Precision
from worker.models import card_for_torchvision
from worker.openvino_engine import FOLDER, OpenVinoEngine

SMALL = "squeezenet1_1"
TALK = """
import sys
heard = []
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
sys.addaudithook(lambda name, details: heard.append(name) if name in NETWORK else None)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Card, Path]:
    path = lively_weights(SMALL, tmp_path_factory.mktemp("weights") / "s.pth")
    return card_for_torchvision(SMALL, path), path


def run(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", TALK + code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=120.0,
    )
    return done.stdout.split()


def test_importing_and_converting_calls_nobody(model: tuple[Card, Path], tmp_path: Path) -> None:
    # Asked of the installer's records: in this process the guard may have blocked the import.
    assert importlib.metadata.version("openvino-telemetry"), "else this shows nothing"
    card, weights = model
    said = run(f"""
from pathlib import Path
from worker.convert import convert_here
from worker.models import card_for_torchvision
weights = Path({str(weights)!r})
convert_here(card_for_torchvision({card.architecture!r}, weights), weights, Path({str(tmp_path)!r}))
loaded = [name for name, module in sys.modules.items() if module and "telemetry" in name]
print(len(heard), len(loaded), "openvino" in sys.modules)
""")
    assert said == ["0", "0", "True"]
    assert (tmp_path / MODEL).is_file()


def test_the_ear_hears_a_call() -> None:
    code = (
        "import socket\ntry: socket.create_connection(('127.0.0.1', 1), 1)\nexcept OSError: pass\n"
    )
    assert int(run(code + "print(len(heard))")[0]) >= 1


def test_nobody_imports_openvino_past_the_guard() -> None:
    guard = "worker/openvino_import.py"
    # Reached through the guard: both call it before they import a part.
    parts = {("worker/convert.py", "openvino.frontend"), ("worker/pools.py", "openvino.opset1")}
    allowed = {*parts, (guard, "openvino")}
    found = {
        (path.as_posix(), name)
        for path, tree in package_sources()
        for _, name in Source(path.as_posix(), tree).imports()
        if name.split(".")[0] in ("openvino", "openvino_telemetry")
    }
    assert {pair for pair in found if not pair[1].startswith("openvino.frontend.")} == allowed


def test_converts_once_and_again_only_if_the_graph_is_damaged(
    model: tuple[Card, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    convert = openvino_engine.convert_here

    def count(card: Card, weights: Path, folder: Path, *, samples: Path | None = None) -> None:
        made.append(folder)
        convert(card, weights, folder, samples=samples)

    monkeypatch.setattr(openvino_engine, "convert_here", count)
    config = EngineConfig(tmp_path, 1, 2, in_child=False)
    image = np.zeros((1, 224, 224, 3), dtype=np.uint8)
    answers = []
    for damage in (False, False, True):
        if damage:
            graph = next((tmp_path / FOLDER).glob(f"*/{MODEL}"))
            graph.write_bytes(graph.read_bytes()[:1000])
        engine = OpenVinoEngine(config)
        engine.load(*model)
        answers.append(engine.infer(image))
        assert len(made) == (2 if damage else 1)
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


class SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))

    @classmethod
    def of_this_thread(cls) -> int | None:
        """Where it begins."""
        found = cls()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
        return found.start


def test_engines_that_come_and_go_leave_signals_their_stack(
    model: tuple[Card, Path], tmp_path: Path
) -> None:
    # Each core of OpenVINO brings a signal stack along, and takes it away when it goes.
    engines, stacks = [], []
    for _ in range(3):
        engines.append(OpenVinoEngine(EngineConfig(tmp_path, 1, 1, in_child=False)))
        engines[-1].load(*model)
        stacks.append(SignalStack.of_this_thread())
    while engines:
        engines.pop(0).close()
        gc.collect()
        stacks.append(SignalStack.of_this_thread())
    assert set(stacks) == {stacks[0]}


def test_int8_without_images_says_what_is_missing(model: tuple[Card, Path], tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="--calibration-images"):
        OpenVinoEngine(EngineConfig(tmp_path, 1, 1, Precision.INT8)).load(*model)


def test_a_conversion_that_fails_leaves_nothing_behind(
    model: tuple[Card, Path], tmp_path: Path
) -> None:
    def fail(folder: Path) -> None:
        (folder / MODEL).write_text("half")
        raise EnvironmentFault("weights_dont_fit", "no")

    made_of = ingredients(model[0], "fp32")
    with pytest.raises(EnvironmentFault, match="no"):
        CompiledCache(tmp_path).obtain(made_of, fail)
    assert [path.name for path in tmp_path.iterdir()] == [f"{key_of(made_of)}.lock"]


def test_the_least_used_graphs_go(tmp_path: Path) -> None:
    cache = CompiledCache(tmp_path)
    places = [
        cache.obtain({"n": n}, lambda folder: [None, (folder / MODEL).touch()][0])
        for n in range(11)
    ]
    left = [place for place in places if place.exists()]
    assert len(left) <= 8
    assert places[-1] in left


def test_a_child_that_dies_is_explained() -> None:
    with pytest.raises(EnvironmentFault, match="ended with status 1") as caught:
        child.run("worker.convert", {"nothing": True}, timeout_s=60.0)
    assert caught.value.code == "child_died"


def test_a_child_that_takes_too_long_is_ended() -> None:
    with pytest.raises(EnvironmentFault) as caught:
        child.run("worker.convert", {"nothing": True}, timeout_s=0.01)
    assert caught.value.code == "child_timeout"
