"""What a user of any serving library writes: Pillow, torchvision's preset, one engine.

The graph is OpenVINO's own conversion with pixels in, so that every row runs the
same network in the same precision and none pays for normalisation in numpy.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from PIL import Image

GRAPH, WEIGHTS, PRECISION = "PEERS_GRAPH", "PEERS_WEIGHTS", "PEERS_PRECISION"
RESIZE_PX, CROP_PX = (int(side) for side in os.environ.get("PEERS_SIZES", "256,224").split(","))


def decode(body: bytes) -> np.ndarray:
    """uint8 [CROP_PX, CROP_PX, 3]: resize the shorter side, crop the middle."""
    image = Image.open(io.BytesIO(body)).convert("RGB")
    scale = RESIZE_PX / min(image.size)
    size = (max(RESIZE_PX, int(image.width * scale)), max(RESIZE_PX, int(image.height * scale)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - CROP_PX) // 2, (size[1] - CROP_PX) // 2
    return np.asarray(image.crop((left, top, left + CROP_PX, top + CROP_PX)))


class OpenVino:
    """The graph on one thread, in the precision that is fastest on this processor."""

    def __init__(self) -> None:
        from worker.openvino_import import import_openvino

        openvino: Any = import_openvino()
        self._request = (
            openvino.Core()
            .compile_model(
                os.environ[GRAPH],
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": os.environ[PRECISION],
                    "INFERENCE_NUM_THREADS": 1,
                    "NUM_STREAMS": 1,
                    "ENABLE_CPU_PINNING": False,
                },
            )
            .create_infer_request()
        )

    def classes(self, pixels: list[np.ndarray]) -> list[int]:
        """Best class of each image."""
        logits = self._request.infer({0: np.stack(pixels)}, share_inputs=True)[0]
        return [int(best) for best in logits.argmax(1)]
