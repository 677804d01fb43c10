"""The limit without a network: one process that decodes, resizes and infers for so many seconds.

Two of these at once, one thread each, are the best arrangement found on two cores.
Prints images/s, or with `alone` the median milliseconds of a single one.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from tests.bench.stage import STAGES
from worker.decode import DecodeLimits, Decoder
from worker.preprocess import Preprocessor
from worker.selection import Selection, SelectionConfig

BATCH = 4


def main() -> None:
    """Arguments: class of the stage, its folder, seconds, `rate` or `alone`."""
    kind, folder, seconds, what = sys.argv[1:]
    stage = STAGES[kind](Path(folder), float(seconds))
    stage.prepare()
    # What a worker would take, by the same measurement, which both keep in one cache.
    wish = SelectionConfig(
        stage.engine, stage.wanted_precision, 1, BATCH, stage.cache, stage.samples
    )
    engine = Selection(wish).prepare(stage.card, stage.weights)
    decoder = Decoder(DecodeLimits())
    prepare, bodies = Preprocessor(stage.card.preprocessing, exact=False), stage.bodies
    batch, times_s, count = (engine.config.batch_max if what == "rate" else 1), [], 0
    print("ready", engine.config.precision, flush=True)
    sys.stdin.readline()
    began_s = time.perf_counter()
    while (now := time.perf_counter()) - began_s < stage.seconds:
        some = [bodies[(count + n) % len(bodies)] for n in range(batch)]
        opened = [(decoder.open(body), body) for body in some]
        pixels = [prepare.pixels(decoder.load_fast(*one, prepare.least_px)) for one in opened]
        engine.infer(np.stack(pixels))
        count += batch
        times_s.append(time.perf_counter() - now)
    rate = count / (time.perf_counter() - began_s)
    print(rate if what == "rate" else 1000 * statistics.median(times_s), flush=True)


if __name__ == "__main__":
    main()
