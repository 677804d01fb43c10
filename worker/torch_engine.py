"""The torch engine: float32, channels last, on the CPU or on the first CUDA device.

Single precision with TensorFloat-32 off: what it answers equals a direct call
of torchvision's model to within rounding. Faster precisions are other engines'
business.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wire.card import Card
from wire.errors import LocalFault
from worker.engine import EngineConfig
from worker.models import load_model


class TorchEngine:
    """Implements `worker.engine.Engine` with torch."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: torch.nn.Module | None = None
        self._input_px = 0
        self._set_up_threads: set[int] = set()
        torch.backends.cudnn.allow_tf32 = False

    def load(self, card: Card, weights: Path) -> None:
        """See `Engine.load`."""
        self._limit_threads()
        model = load_model(card, weights).to(self._device)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._input_px = card.preprocessing.crop_px

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        for n in sorted({1, self._config.batch_max}):
            self.infer(np.zeros((n, 3, self._input_px, self._input_px), dtype=np.float32))

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.infer`."""
        if self._model is None:
            raise LocalFault("infer() was called before load()")
        self._limit_threads()
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(self._device)
            images = images.contiguous(memory_format=torch.channels_last)
            logits: NDArray[np.float32] = self._model(images).float().cpu().numpy()
        return logits

    def describe(self) -> str:
        """See `Engine.describe`."""
        if self._device.type == "cuda":
            return f"torch {torch.__version__} {torch.cuda.get_device_name(self._device)} fp32"
        return f"torch {torch.__version__} cpu fp32 threads={self._config.threads}"

    def _limit_threads(self) -> None:
        # OpenMP keeps the number of threads for each calling thread apart.
        me = threading.get_ident()
        if me not in self._set_up_threads:
            torch.set_num_threads(self._config.threads)
            self._set_up_threads.add(me)
