"""The OpenVINO engine: the CPU, in fp32, bf16 or int8.

The checkpoint is converted once, by a child process with torch (`worker.convert`),
and kept (`worker.compiled`); from then on loading takes no torch and a tenth of a
second. Single images have a graph of fixed shape, 7 % faster than the one for
batches of any size.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.card import Card
from wire.errors import EnvironmentFault, LocalFault
from worker.compiled import MODEL, CompiledCache, for_this_processor, ingredients
from worker.convert import convert_here, convert_in_child
from worker.engine import EngineConfig, Precision, shareable
from worker.identity import check_identity
from worker.machine import has_bf16, version_of
from worker.openvino_import import import_openvino, the_core

FOLDER = "openvino"


class OpenVinoEngine:
    """Implements `worker.engine.Engine` with OpenVINO."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._convert = convert_in_child if config.in_child else convert_here
        self._openvino = import_openvino()
        self._cache = CompiledCache(config.cache / FOLDER)
        self._input_px = 0
        self._lanes = threading.BoundedSemaphore(config.lanes)
        # Each holds what one forward pass needs; whoever has one may infer.
        self._singles: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._batches: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def load(self, card: Card, weights: Path) -> None:
        """See `Engine.load`."""
        check_identity(card, weights)
        self._input_px = card.preprocessing.crop_px
        place = self._obtain(card, weights)
        try:
            self._compile(place)
        except RuntimeError:
            # A graph that can't be read was damaged on disk: make it anew, once.
            self._cache.forget(place)
            self._compile(self._obtain(card, weights))

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        for n in range(1, self.config.batch_max + 1):
            batch = np.zeros((n, self._input_px, self._input_px, 3), dtype=np.uint8)
            for _ in range(self.config.lanes):
                self.infer(batch)

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.infer`."""
        if not self._input_px:
            raise LocalFault("infer() was called before load()")
        idle = self._singles if len(batch) == 1 else self._batches
        with self._lanes:
            request = idle.get()
            try:
                return self._infer(request, shareable(batch))
            finally:
                idle.put(request)

    def describe(self) -> str:
        """See `Engine.describe`."""
        config = self.config
        return (
            f"openvino {version_of('openvino')} cpu {config.precision}"
            f" threads={config.threads}x{config.lanes}"
        )

    def close(self) -> None:
        """See `Engine.close`."""
        self._input_px = 0
        self._singles, self._batches = queue.SimpleQueue(), queue.SimpleQueue()

    def _obtain(self, card: Card, weights: Path) -> Path:
        is_int8 = self.config.precision is Precision.INT8
        samples = self.config.samples if is_int8 else None
        if is_int8 and samples is None:
            raise EnvironmentFault(
                "samples_missing",
                "int8 needs a few hundred images of the kind that you classify, to measure its"
                " scales with: give their folder with --calibration-images",
            )
        made_of = ingredients(card, "int8" if is_int8 else "fp32", samples)
        return self._cache.obtain(
            made_of, lambda folder: self._convert(card, weights, folder, samples=samples)
        )

    def _infer(self, request: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        request.set_input_tensor(self._openvino.Tensor(pixels, shared_memory=True))
        request.infer()
        logits: NDArray[np.float32] = request.get_output_tensor().data.copy()
        return logits

    def _compile(self, place: Path) -> None:
        lanes = self.config.lanes
        core = the_core()
        properties = {
            "CACHE_DIR": str(for_this_processor(place)),
            "INFERENCE_PRECISION_HINT": self._hint(),
            "NUM_STREAMS": lanes,
            "INFERENCE_NUM_THREADS": self.config.threads * lanes,
            # Workers of one machine would all pin themselves to its first cores.
            "ENABLE_CPU_PINNING": False,
        }
        for count, idle in ((1, self._singles), (-1, self._batches)):
            model = core.read_model(place / MODEL)
            model.reshape([count, self._input_px, self._input_px, 3])
            compiled = core.compile_model(model, "CPU", properties)
            for _ in range(lanes):
                idle.put(compiled.create_infer_request())

    def _hint(self) -> str:
        if self.config.precision is Precision.FP32:
            return "f32"
        # In int8 this is for the layers that stay unquantised.
        return "bf16" if has_bf16() else "f32"
