"""Begun leases to results: decode → preprocess → batch → infer, each stage overlapped.

A pool of threads decodes and preprocesses; one thread for each of the engine's lanes
infers, on whatever is ready at that moment up to the engine's `batch_max` images. It
waits for a fuller batch only where `batch_wait_s` allows it and only while other
images are being decoded: a single image on an idle worker never waits. Every queue
holds at most `executing_max` images, which the agent guarantees by how many leases it
begins. Promises exactly one `Finished` for each lease submitted, whatever the image or
the engine does, unless the process dies.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wire import messages as m
from wire.card import Card
from wire.errors import LocalFault
from worker.decode import DecodeLimits, Decoder, ImageFault
from worker.decode_pool import DecodePool, PoolConfig, RestartClock
from worker.engine import Engine
from worker.events import Finished, Lease, Post, Unwell
from worker.faults import Faults
from worker.guesses import top_guesses
from worker.preprocess import Preprocessor
from worker.vitals import Vitals

log = logging.getLogger("lookout.worker.pipeline")
ENGINE_FAULTS_MAX = 3
"""After so many failed forward passes in a row the device is taken for broken."""
LANES_MAX = 256
"""More forward passes at once than any machine has a use for."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model in memory, warm, with everything that turns an image into its input."""

    card: Card
    engine: Engine
    preprocessor: Preprocessor


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """Widths and bounds of the stages; `batch_wait_s` counts from a batch's first image."""

    decode_threads: int
    executing_max: int
    limits: DecodeLimits
    batch_wait_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Item:
    """One image on its way; each stage writes down how long it took."""

    lease: Lease
    served: Served
    timings_ms: dict[str, float]
    pixels: NDArray[np.uint8] | None = None
    ready_s: float = 0.0


class Pipeline:
    """Executes leases; `post` takes `Finished` and `Unwell` from any of its threads."""

    def __init__(
        self,
        config: PipelineConfig,
        faults: Faults,
        vitals: Vitals,
        post: Post,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._faults = faults
        self._vitals = vitals
        self._post = post
        self._clock = clock
        self._served: Served | None = None
        self._decoder = Decoder(config.limits)
        self._large = threading.Lock()
        self._failures = 0
        self._coming = 0
        self._coming_lock = threading.Lock()
        self._ready: queue.Queue[_Item | None] = queue.Queue(config.executing_max + LANES_MAX)
        self._pool: DecodePool[_Item] = DecodePool(
            PoolConfig(
                config.decode_threads,
                config.executing_max,
                config.limits.timeout_s,
                config.limits.wedged_s,
            ),
            self._prepare,
            self._time_out,
            lambda reason: post(Unwell(reason)),
            clock,
        )
        self._infer_threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads that decode; `serve` starts those that infer."""
        self._pool.start()

    def serve(self, served: Served) -> None:
        """Use this model for leases submitted from now on; earlier ones keep theirs.

        Threads that a model with fewer lanes leaves over wait inside the engine.
        """
        self._served = served
        while len(self._infer_threads) < min(served.engine.config.lanes, LANES_MAX):
            thread = threading.Thread(target=self._infer_loop, name="infer", daemon=True)
            self._infer_threads.append(thread)
            thread.start()

    def submit(self, lease: Lease) -> None:
        """Execute a lease; never blocks. `Finished` follows."""
        if self._served is None:
            raise LocalFault("a lease was begun before there was a model")
        with self._coming_lock:
            self._coming += 1
        self._pool.submit(_Item(lease, self._served, {}))

    def close(self, timeout_s: float = 1.0) -> bool:
        """End the threads; True if those that infer ended in time."""
        self._pool.close()
        deadline_s = self._clock() + timeout_s
        with contextlib.suppress(queue.Full):
            for _ in self._infer_threads:
                self._ready.put_nowait(None)
        for thread in self._infer_threads:
            thread.join(max(0.0, deadline_s - self._clock()))
        return not any(thread.is_alive() for thread in self._infer_threads)

    # --- decode and preprocess, on the pool's threads ------------------------------------

    def _prepare(self, item: _Item, restart_clock: RestartClock) -> Callable[[], None]:
        begun_s = self._clock()
        item.timings_ms["queue"] = _ms(begun_s - item.lease.received_s)
        try:
            self._decode(item, restart_clock)
        except ImageFault as fault:
            refusal = m.Fault(code=fault.code, message=fault.reason, retryable=fault.retryable)
            return partial(self._refuse, item, refusal)
        except Exception as error:  # a bug that one image meets fails its job alone
            log.exception("decoding failed job=%s", item.lease.assign.job)
            return partial(self._refuse, item, _internal("decode_error", error))
        return partial(self._hand_over, item)

    def _decode(self, item: _Item, restart_clock: RestartClock) -> None:
        data = item.lease.assign.image
        self._faults.before_decode(data)
        opened = self._decoder.open(data)
        # Large images go one at a time, so that memory stays bounded by the largest one.
        with self._large if self._decoder.is_large(opened) else contextlib.nullcontext():
            restart_clock()
            started_s = self._clock()
            prepare = item.served.preprocessor
            load = self._decoder.load if prepare.is_exact else self._decoder.load_fast
            image = load(opened, data, prepare.least_px)
            decoded_s = self._clock()
            item.pixels = prepare.pixels(image)
        item.timings_ms["decode"] = _ms(decoded_s - started_s)
        item.timings_ms["preprocess"] = _ms(self._clock() - decoded_s)

    def _hand_over(self, item: _Item) -> None:
        self._vitals.advance()
        item.ready_s = self._clock()
        # Counted before it can be taken, so that nobody waits for what has come.
        self._one_came()
        self._ready.put(item)

    def _one_came(self) -> None:
        with self._coming_lock:
            self._coming -= 1

    def _refuse(self, item: _Item, fault: m.Fault) -> None:
        self._one_came()
        self._fail(item, fault)

    def _time_out(self, item: _Item) -> None:
        limit_s = self._config.limits.timeout_s
        reason = f"decoding took longer than {limit_s:g} s: save the image anew, or smaller"
        self._refuse(item, m.Fault(code="decode_timeout", message=reason))

    # --- infer, on its own thread --------------------------------------------------------

    def _infer_loop(self) -> None:
        carried: _Item | None = None
        while (first := carried or self._ready.get()) is not None:
            batch, carried = self._gather(first)
            self._infer(batch)

    def _gather(self, first: _Item) -> tuple[list[_Item], _Item | None]:
        """Take what is ready now, or will be in time, and belongs to the same model."""
        batch = [first]
        deadline_s = first.ready_s + self._config.batch_wait_s
        while len(batch) < first.served.engine.config.batch_max:
            try:
                item = self._next(deadline_s)
            except queue.Empty:
                break
            if item is None:
                self._ready.put(None)  # the end: for the next turn of this loop
                break
            if item.served is not first.served:
                return batch, item
            batch.append(item)
        return batch, None

    def _next(self, deadline_s: float) -> _Item | None:
        """What is ready; if nothing is but some images are on their way, wait for them."""
        left_s = deadline_s - self._clock()
        if left_s <= 0.0 or self._coming == 0:
            return self._ready.get_nowait()
        return self._ready.get(timeout=left_s)

    def _infer(self, batch: list[_Item]) -> None:
        begun_s = self._clock()
        try:
            self._faults.before_infer()
            logits = self._forward(batch)
        except Exception as error:  # engines raise what their libraries do; the lane goes on
            self._engine_failed(batch, error)
            return
        self._failures = 0
        infer_ms = _ms(self._clock() - begun_s)
        finished: list[Finished] = []
        for item, row in zip(batch, logits, strict=True):
            item.timings_ms["wait"] = _ms(begun_s - item.ready_s)
            item.timings_ms["infer"] = infer_ms
            item.timings_ms["batch_size"] = float(len(batch))
            finished.append(self._finish(item, top_guesses(row, item.served.card.classes), None))
        # The first one wakes the thread that sends: what comes much later is a write of its own.
        for one in finished:
            self._post(one)

    def _forward(self, batch: list[_Item]) -> NDArray[np.float32]:
        served = batch[0].served
        pixels = np.stack([item.pixels for item in batch if item.pixels is not None])
        logits = served.engine.infer(pixels)
        expected = (len(batch), len(served.card.classes))
        if logits.shape != expected:
            raise ValueError(f"the engine answered {logits.shape}, the card says {expected}")
        if not np.isfinite(logits).all():
            raise ValueError("the engine answered values that are not finite")
        return logits

    def _engine_failed(self, batch: list[_Item], error: Exception) -> None:
        jobs = ",".join(item.lease.assign.job for item in batch)
        log.error("the engine failed jobs=%s", jobs, exc_info=error)
        for item in batch:
            self._fail(item, _internal("engine_error", error))
        self._failures += 1
        if self._failures == ENGINE_FAULTS_MAX:
            self._post(Unwell(f"{self._failures} forward passes in a row failed: {error}"))

    # --- reports -------------------------------------------------------------------------

    def _fail(self, item: _Item, fault: m.Fault) -> None:
        self._post(self._finish(item, [], fault))

    def _finish(self, item: _Item, top5: list[m.Guess], fault: m.Fault | None) -> Finished:
        self._vitals.advance()
        item.pixels = None
        item.timings_ms["total"] = _ms(self._clock() - item.lease.received_s)
        assign = item.lease.assign
        result = m.Result(
            job=assign.job,
            token=assign.token,
            model=item.served.card.id,
            top5=top5,
            fault=fault,
            timings_ms=dict(item.timings_ms),
        )
        return Finished(result)


def _internal(code: str, error: Exception) -> m.Fault:
    text = f"{type(error).__name__}: {error}"[:500]
    return m.Fault(code=code, message=f"this worker failed on it: {text}", retryable=True)


def _ms(seconds: float) -> float:
    return round(seconds * 1000.0, 3)
