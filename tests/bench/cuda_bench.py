"""GoogLeNet in half precision on a CUDA device: the device's limit, the engine, the pipeline.

    python -m tests.bench cuda [-- --rounds N --seconds S --batch N …]

Three rows, interleaved: `bare` replays one recorded graph on pixels that are on the
device already; `engine` hands decoded pixels from memory to `TorchEngine`, as a worker
does; `pipeline` begins with JPEGs of about 108 kB and so shows what decoding allows.
Without a device it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.bench.peers_bench import spread
from tests.bench.stage import photographs
from tests.fakes.weights import lively_weights
from wire import messages as m
from wire.card import Card
from worker.decode import DecodeLimits
from worker.engine import TORCH, Engine, EngineConfig, Precision, make_engine
from worker.events import Finished, Lease
from worker.faults import Faults
from worker.graph import load_graph, traced
from worker.models import card_for_torchvision
from worker.pipeline import Pipeline, PipelineConfig, Served
from worker.preprocess import Preprocessor
from worker.vitals import Vitals

FEEDERS = 2
"""Threads that call the engine: one copies and waits while the other's batch is computed."""
ENGINE_SHARE_MIN = 0.8


@dataclass
class Bench:
    """One model on the device, and images for it."""

    card: Card
    weights: Path
    batch: int
    seconds: float

    def bare(self) -> float:
        """Images/s of one recorded graph, nothing copied."""
        device = torch.device("cuda")
        network = load_graph(self.card, self.weights, torch.float16).to(device)
        script = traced(network, self.card, device)
        px = self.card.preprocessing.crop_px
        pixels = torch.randint(0, 256, (self.batch, px, px, 3), dtype=torch.uint8, device=device)
        stream = torch.cuda.Stream()
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(3):
                script(pixels)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                script(pixels)

            def once() -> int:
                graph.replay()
                stream.synchronize()
                return self.batch

            return rate(once, self.seconds)

    def engine(self) -> float:
        """Images/s through `TorchEngine.infer`, from pixels in memory."""
        engine = self.made()
        batch = noise(self.batch, self.card.preprocessing.crop_px)
        counts = [0.0] * FEEDERS

        def feed(number: int) -> None:
            counts[number] = rate(lambda: len(engine.infer(batch)), self.seconds)

        threads = [threading.Thread(target=feed, args=(n,)) for n in range(FEEDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.close()
        return sum(counts)

    def pipeline(self) -> float:
        """Images/s from JPEG to result, decoding on every core."""
        cores = os.cpu_count() or 1
        bodies, done = photographs(), queue.SimpleQueue[object]()
        executing_max = cores + FEEDERS * self.batch
        config = PipelineConfig(cores, executing_max, DecodeLimits())
        pipeline = Pipeline(config, Faults(), Vitals(), done.put)
        pipeline.start()
        recipe = Preprocessor(self.card.preprocessing, exact=False)
        pipeline.serve(Served(self.card, self.made(), recipe))
        sent = 0

        def send() -> None:
            nonlocal sent
            image = bodies[sent % len(bodies)]
            assign = m.Assign(job=str(sent), token=sent, attempt=1, name="x", image=image)
            pipeline.submit(Lease(assign, time.monotonic(), None))
            sent += 1

        def once() -> int:
            ended = done.get(timeout=60.0)
            assert isinstance(ended, Finished), ended
            assert ended.result.fault is None, ended.result.fault
            send()
            return 1

        for _ in range(executing_max):
            send()
        found = rate(once, self.seconds)
        pipeline.close()
        return found

    def made(self) -> Engine:
        """The engine as a worker has it, warm."""
        folder = self.weights.parent / "cache"
        engine = make_engine(
            TORCH, EngineConfig(folder, 1, self.batch, Precision.FP16, lanes=FEEDERS)
        )
        engine.load(self.card, self.weights)
        engine.warm_up()
        return engine


def noise(count: int, px: int) -> NDArray[np.uint8]:
    """Pixels that mean nothing: a device takes the same time for all."""
    return np.random.default_rng(0).integers(0, 256, (count, px, px, 3), dtype=np.uint8)


def rate(once: Callable[[], int], seconds: float) -> float:
    """Images/s of calling `once`, which says how many it did, after half a second of the same."""
    until_s = time.perf_counter() + 0.5
    while time.perf_counter() < until_s:
        once()
    count, began_s = 0, time.perf_counter()
    while (now := time.perf_counter()) - began_s < seconds:
        count += once()
    return count / (now - began_s)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batch", type=int, nargs="*", default=[16, 64, 256])
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("skipped: torch finds no CUDA device here; run it on a machine with one")
        return
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        weights = lively_weights("googlenet", Path(folder) / "weights.pth")
        card = card_for_torchvision("googlenet", weights)
        print(
            "| batch | bare | engine | engine ÷ bare | pipeline from JPEG |\n|---|---|---|---|---|"
        )
        for batch in options.batch:
            print(row(Bench(card, weights, batch, options.seconds), options.rounds), flush=True)
    print(f"wanted: engine ÷ bare at least {ENGINE_SHARE_MIN}")


def row(bench: Bench, rounds: int) -> str:
    """Medians and ranges of one size of batch."""
    found = [(bench.bare(), bench.engine(), bench.pipeline()) for _ in range(rounds)]
    bare, engine, pipeline = (list(values) for values in zip(*found, strict=True))
    share = [ours / limit for ours, limit in zip(engine, bare, strict=True)]
    cells = [spread(bare, ".0f"), spread(engine, ".0f"), spread(share, ".2f")]
    return f"| {bench.batch} | {' | '.join(cells)} | {spread(pipeline, '.0f')} |"


if __name__ == "__main__":
    main()
