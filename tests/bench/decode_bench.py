"""Large JPEGs at full size and scaled while they are decoded: what can be skipped, what can't.

    python -m tests.bench decode [-- --rounds N]

Milliseconds of processor time an image, one thread. `at 1/8` makes one pixel of each
block of 64 and so shows the price of the entropy coding, which every scale has to read to
its end: no way of decoding a JPEG of one scan is faster than that.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Sequence

from PIL import Image, features

from tests.bench.peers_bench import spread
from tests.bench.stage import photographs
from wire.card import Preprocessing
from worker import machine
from worker.decode import DecodeLimits, Decoder
from worker.preprocess import Preprocessor

SIZE = (4000, 3000)
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
    turbo = features.version_feature("libjpeg_turbo")
    print(f"{machine.cpu_model()}; Pillow {Image.__version__}, libjpeg-turbo {turbo}; {SIZE}")
    print(
        "| JPEG | kB | decode, full | at 1/8 | the worker's | full ÷ worker's"
        " | full ÷ 1/8: the limit | with resize: full | worker's | ÷ |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind, options in KINDS.items():
        print(row(kind, large(options), rounds), flush=True)
    print(f"wanted: decoding {WANTED:g} times faster than at full size")


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
    recipe = Preprocessing(resize_px=256, crop_px=224)
    exact, fast = Preprocessor(recipe), Preprocessor(recipe, exact=False)
    steps: list[Callable[[], object]] = [
        lambda: decoder.decode(data),
        lambda: decoder.decode(data, SIZE[1] // 8),
        lambda: decoder.decode(data, fast.least_px),
        lambda: exact.pixels(decoder.decode(data)),
        lambda: fast.pixels(decoder.decode(data, fast.least_px)),
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
