"""The plain script: Flask's own threaded server and torch in float32, as tutorials have it."""

from __future__ import annotations

import os
import sys

import torch
from flask import Flask, request

from tests.bench.peers.naive import WEIGHTS, decode
from worker.models import build

app = Flask(__name__)
model = build("googlenet", 1000)
model.load_state_dict(torch.load(os.environ[WEIGHTS], weights_only=True), strict=False)
model.eval()
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@app.post("/")
def classify() -> dict[str, int]:
    """One image, one forward pass."""
    pixels = torch.from_numpy(decode(request.get_data()).copy()).permute(2, 0, 1) / 255.0
    with torch.inference_mode():
        return {"class_id": int(model(((pixels - MEAN) / STD)[None]).argmax())}


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
