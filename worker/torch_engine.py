"""The torch engine: a frozen graph, channels last, on the CPU or on the first CUDA device.

In fp32, with TensorFloat-32 off, what it answers equals a direct call of
torchvision's model to within rounding. On CUDA the graph of each size of batch is
recorded once and replayed (`worker.cuda`), which spares hundreds of launches.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wire.card import Card
from wire.errors import LocalFault
from worker.cuda import CudaGraphs
from worker.engine import EngineConfig, Precision, shareable
from worker.graph import load_graph, traced

_DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}


class TorchEngine:
    """Implements `worker.engine.Engine` with torch."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._graph: torch.nn.Module | None = None
        self._recorded: CudaGraphs | None = None
        self._input_px = 0
        self._set_up_threads: set[int] = set()
        self._lanes = threading.BoundedSemaphore(config.lanes)
        torch.backends.cudnn.allow_tf32 = False

    def load(self, card: Card, weights: Path) -> None:
        """See `Engine.load`."""
        self._limit_threads()
        graph = load_graph(card, weights, _DTYPES[self.config.precision]).to(self._device)
        self._graph = traced(graph, card, self._device)
        self._input_px = card.preprocessing.crop_px

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        if self._device.type == "cuda":
            assert self._graph is not None
            self._recorded = CudaGraphs(self._graph, self.config.batch_max, self._input_px)
        for n in range(1, self.config.batch_max + 1):
            self.infer(np.zeros((n, self._input_px, self._input_px, 3), dtype=np.uint8))

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.infer`."""
        if self._graph is None:
            raise LocalFault("infer() was called before load()")
        with self._lanes:
            if self._recorded is not None:
                return self._recorded.infer(batch)
            self._limit_threads()
            with torch.inference_mode():
                pixels = torch.from_numpy(shareable(batch)).to(self._device)
                logits: NDArray[np.float32] = self._graph(pixels).cpu().numpy()
            return logits

    def describe(self) -> str:
        """See `Engine.describe`."""
        start = f"torch {torch.__version__}"
        if self._device.type == "cuda":
            name = torch.cuda.get_device_name(self._device)
            return f"{start} {name} {self.config.precision}"
        config = self.config
        return f"{start} cpu {config.precision} threads={config.threads}x{config.lanes}"

    def close(self) -> None:
        """See `Engine.close`."""
        self._graph = self._recorded = None

    def _limit_threads(self) -> None:
        # OpenMP keeps the number of threads for each calling thread apart.
        me = threading.get_ident()
        if me not in self._set_up_threads:
            torch.set_num_threads(self.config.threads)
            self._set_up_threads.add(me)
