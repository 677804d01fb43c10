"""The limit without a network: one process that decodes, resizes and infers for so many seconds.

Two of these at once, one thread each, are the best arrangement found on two cores.
Prints images/s, or with `alone` the median milliseconds of a single one.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from wire.card import Card
from worker.decode import DecodeLimits, Decoder
from worker.engine import AUTO
from worker.preprocess import Preprocessor
from worker.selection import Selection, SelectionConfig

BATCH = 4


def main() -> None:
    """Arguments: folder with card.json, weights and images; cache; seconds; `rate` or `alone`."""
    folder, cache, seconds, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    card = msgspec.json.decode((folder / "card.json").read_bytes(), type=Card)
    # What a worker would take, by the same measurement, which both keep in one cache.
    selection = Selection(SelectionConfig(AUTO, AUTO, 1, BATCH, cache))
    engine = selection.prepare(card, folder / "weights.pth")
    decoder, prepare = Decoder(DecodeLimits()), Preprocessor(card.preprocessing, exact=False)
    bodies = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
    batch, times_s, count = (engine.config.batch_max if what == "rate" else 1), [], 0
    print("ready", engine.config.precision, flush=True)
    sys.stdin.readline()
    began_s = time.perf_counter()
    while (now := time.perf_counter()) - began_s < float(seconds):
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
