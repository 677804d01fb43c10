"""GoogLeNet's graph as OpenVINO converts it, and as Lookout makes it of that: inference alone.

    python -m tests.bench.graphs_bench [--rounds N]

Milliseconds of processor time an image, one thread, both graphs in turn within each round;
with seeded random weights at 224 px in fp32 and bf16, and the bundled model at 128 px in int8.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.peers_bench import HINTS, INT8_STAGE, STAGE, spread
from tests.bench.stage import Int8Stage, Stage
from tests.shared import CIFAR10_TRAIN, shared_file
from worker import machine
from worker.openvino_import import import_openvino, the_core

BATCHES = (1, 4)
IMAGES = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args(arguments).rounds
    print(f"{machine.cpu_model()}; openvino {machine.version_of('openvino')}\n")
    print("| precision | batch | OpenVINO's graph | Lookout's | ÷ |\n|---|---|---|---|---|")
    stage = Stage(STAGE, 0.0)
    stage.prepare()
    for precision in ("fp32", *(("bf16",) if machine.has_bf16() else ())):
        compare(stage, precision, rounds)
    if shared_file(CIFAR10_TRAIN) is None:
        print(f"\nint8: skipped, there is no {CIFAR10_TRAIN} to quantise the bundled model with")
        return
    quantised = Int8Stage(INT8_STAGE, 0.0)
    quantised.prepare()
    compare(quantised, "int8", rounds)


def compare(stage: Stage, precision: str, rounds: int) -> None:
    """Print a row for each size of batch."""
    px = stage.card.preprocessing.crop_px
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(
            0, 256, (IMAGES // batch, batch, px, px, 3), dtype=np.uint8
        )
        both = [
            compiled(path, HINTS[precision], batch, px) for path in (stage.plain_graph, stage.graph)
        ]
        times: list[list[float]] = [[], []]
        for number in range(rounds + 1):
            for which in (0, 1) if number % 2 else (1, 0):
                times[which].append(ms_an_image(both[which], images))
        # The first round fetches the weights from memory and allocates what later ones use.
        plain, ours = times[0][1:], times[1][1:]
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        cells = (spread(plain, ".2f"), spread(ours, ".2f"), spread(ratios, ".2f"))
        print(f"| {precision} | {batch} | {' | '.join(cells)} |", flush=True)


def compiled(path: Path, hint: str, batch: int, px: int) -> Any:
    """A request to infer with, on one thread."""
    model = the_core().read_model(path)
    model.reshape([batch, px, px, 3])
    properties = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return the_core().compile_model(model, "CPU", properties).create_infer_request()


def ms_an_image(request: Any, images: NDArray[np.uint8]) -> float:
    """Processor time of all batches, uint8 [batches, batch, h, w, 3], over their images."""
    tensor = import_openvino().Tensor
    began_s = time.process_time()
    for batch in images:
        request.set_input_tensor(tensor(batch, shared_memory=True))
        request.infer()
    return (time.process_time() - began_s) * 1000.0 / IMAGES


if __name__ == "__main__":
    main()
