"""CUDA graphs of one network: recorded once for each size of batch, then replayed.

A replay costs one launch instead of one for each layer. It reads and writes fixed
buffers, so batches are copied into pinned memory, from there to the device without
waiting, and one replay runs at a time. Sizes are powers of two; a batch is padded
to the next with whatever the buffer held, and the surplus answers are dropped.

Source of the pattern: PyTorch's documentation, "CUDA semantics", section "CUDA Graphs".
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

_WARM_UPS = 3
"""Runs before the recording: cuDNN chooses its kernels and its memory in them."""


@dataclass(frozen=True, slots=True)
class _Recording:
    """One size of batch: pinned memory, the graph's own input and output, and the graph."""

    pinned: torch.Tensor
    pixels: torch.Tensor
    logits: torch.Tensor
    answer: torch.Tensor
    graph: torch.cuda.CUDAGraph


class CudaGraphs:
    """Answers batches of up to `batch_max` images of `px` by `px`."""

    def __init__(self, network: torch.nn.Module, batch_max: int, px: int) -> None:
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream()
        self._recordings = {n: self._record(network, n, px) for n in sizes_up_to(batch_max)}

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 [n, classes] of uint8 [n, px, px, 3]."""
        count = len(batch)
        recording = self._recordings[next(n for n in self._recordings if n >= count)]
        with self._lock, torch.inference_mode(), torch.cuda.stream(self._stream):
            recording.pinned[:count].numpy()[:] = batch
            recording.pixels.copy_(recording.pinned, non_blocking=True)
            recording.graph.replay()
            recording.answer.copy_(recording.logits, non_blocking=True)
            # Waits for this stream only, and lets go of the interpreter lock meanwhile.
            self._stream.synchronize()
            answer: NDArray[np.float32] = recording.answer[:count].numpy().copy()
        return answer

    def _record(self, network: torch.nn.Module, count: int, px: int) -> _Recording:
        pixels = torch.zeros((count, px, px, 3), dtype=torch.uint8, device="cuda")
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                network(pixels)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                logits = network(pixels)
        return _Recording(
            pinned=torch.zeros(pixels.shape, dtype=torch.uint8, pin_memory=True),
            pixels=pixels,
            logits=logits,
            answer=torch.zeros(logits.shape, dtype=torch.float32, pin_memory=True),
            graph=graph,
        )


def sizes_up_to(batch_max: int) -> list[int]:
    """1, 2, 4, … and `batch_max` itself, rising."""
    powers = [2**k for k in range(batch_max.bit_length()) if 2**k < batch_max]
    return [*powers, batch_max]
