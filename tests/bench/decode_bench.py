"""What decoding and resizing a JPEG costs: ordinary ones step by step, large ones by scale.

    python -m tests.bench.decode_bench [--rounds N]

Milliseconds of processor time an image, one thread. `at 1/8` makes one pixel of each
block of 64 and so shows the price of the entropy coding, which every scale has to read to
its end: no way of decoding a JPEG of one scan is faster than that.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image, features

from tests.bench.peers_bench import spread
from tests.bench.stage import photographs
from wire.card import Preprocessing
from worker import machine
from worker.decode import DecodeLimits, Decoder, Picture
from worker.preprocess import Preprocessor

SIZE = (4000, 3000)
RECIPE = Preprocessing(resize_px=256, crop_px=224)
WANTED = 5.0
KINDS = {
    "quality 75": {"quality": 75},
    "quality 90": {"quality": 90},
    "quality 90, no chroma subsampling": {"quality": 90, "subsampling": 0},
    "quality 90, progressive": {"quality": 90, "progressive": True},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(arguments).rounds
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        # As in a worker; numpy has read it by now.
        command = [sys.executable, "-m", "tests.bench.decode_bench", "--rounds", str(rounds)]
        subprocess.run(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, check=True)
        return
    turbo = features.version_feature("libjpeg_turbo")
    print(f"{machine.cpu_model()}; Pillow {Image.__version__}, libjpeg-turbo {turbo}")
    ordinary(rounds)
    print(f"\n{SIZE[0]} × {SIZE[1]} pixels:\n")
    print(
        "| JPEG | kB | decode, full | at 1/8 | the worker's | full ÷ worker's"
        " | full ÷ 1/8: the limit | with resize: full | worker's | ÷ |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind, options in KINDS.items():
        print(row(kind, large(options), rounds), flush=True)
    print(f"wanted: decoding {WANTED:g} times faster than at full size")


def ordinary(rounds: int) -> None:
    """Print the steps of photographs of about 108 kB, at 224 px."""
    bodies = photographs()
    decoder, fast = Decoder(DecodeLimits()), Preprocessor(RECIPE, exact=False)
    exact, least_px = Preprocessor(RECIPE), fast.least_px
    images = [decoder.decode(body, least_px) for body in bodies]
    arrays = [np.asarray(image) for image in images]
    steps: dict[str, list[Callable[[], object]]] = {
        "Pillow: decode": [partial(decoder.decode, body, least_px) for body in bodies],
        "Pillow: resize the whole, then crop": [partial(exact.pixels, image) for image in images],
        "Pillow: resize what the crop keeps": [partial(fast.pixels, image) for image in images],
        "simplejpeg: decode": [partial(as_worker, decoder, body, least_px) for body in bodies],
        "products of matrices: resize what the crop keeps": [
            partial(fast.pixels, array) for array in arrays
        ],
        "at 1/8: entropy coding": [partial(decoder.decode, body, 1) for body in bodies],
        "before: Pillow, in one step": [
            lambda body=body: fast.pixels(decoder.decode(body, least_px)) for body in bodies
        ],
        "the worker's": [
            lambda body=body: fast.pixels(as_worker(decoder, body, least_px)) for body in bodies
        ],
    }
    for calls in steps.values():
        mean_ms(calls)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, calls in steps.items():
            found[name].append(mean_ms(calls))
    sizes = [len(body) for body in bodies]
    print(f"\n{len(bodies)} photographs of {statistics.mean(sizes) / 1000:.0f} kB:\n")
    print("| step | ms |\n|---|---|")
    for name, values in found.items():
        print(f"| {name} | {spread(values, '.2f')} |", flush=True)


def as_worker(decoder: Decoder, body: bytes, least_px: int | None) -> Picture:
    """Decoded as a worker does it."""
    return decoder.load_fast(decoder.open(body), body, least_px)


def mean_ms(calls: Sequence[Callable[[], object]]) -> float:
    """Milliseconds of processor time of one of these."""
    return statistics.mean(cpu_ms(call) for call in calls)


def large(options: dict[str, object]) -> bytes:
    """A photograph made of 12 megapixels, with a photograph's detail: others side by side."""
    canvas = Image.new("RGB", SIZE)
    tiles = [Image.open(io.BytesIO(body)).convert("RGB") for body in photographs()]
    width = height = 500
    for number in range((SIZE[0] // width) * (SIZE[1] // height)):
        tile = tiles[number % len(tiles)].resize((width, height), Image.Resampling.BICUBIC)
        across, down = number % (SIZE[0] // width), number // (SIZE[0] // width)
        canvas.paste(tile, (across * width, down * height))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def row(kind: str, data: bytes, rounds: int) -> str:
    """One line of the table; every ratio within one round."""
    decoder = Decoder(DecodeLimits())
    exact, fast = Preprocessor(RECIPE), Preprocessor(RECIPE, exact=False)
    steps: list[Callable[[], object]] = [
        lambda: decoder.decode(data),
        lambda: decoder.decode(data, SIZE[1] // 8),
        lambda: as_worker(decoder, data, fast.least_px),
        lambda: exact.pixels(decoder.decode(data)),
        lambda: fast.pixels(as_worker(decoder, data, fast.least_px)),
    ]
    for step in steps:
        step()
    found = [[cpu_ms(step) for step in steps] for _ in range(rounds)]
    full, least, ours, full_all, ours_all = (list(values) for values in zip(*found, strict=True))
    cells = [
        *(f"{statistics.median(values):.1f}" for values in (full, least, ours)),
        *(ratio(full, ours), ratio(full, least)),
        *(f"{statistics.median(values):.1f}" for values in (full_all, ours_all)),
        ratio(full_all, ours_all),
    ]
    return f"| {kind} | {len(data) // 1000} | {' | '.join(cells)} |"


def ratio(above: list[float], below: list[float]) -> str:
    """Of each round."""
    return spread([a / b for a, b in zip(above, below, strict=True)], ".1f")


def cpu_ms(step: Callable[[], object]) -> float:
    """Milliseconds of processor time."""
    began_s = time.thread_time()
    step()
    return 1000.0 * (time.thread_time() - began_s)


if __name__ == "__main__":
    main()
