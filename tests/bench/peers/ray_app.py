"""Ray Serve with two replicas, its HTTP proxy as installed."""

from __future__ import annotations

import signal
import sys

import ray
from ray import serve
from starlette.requests import Request

from tests.bench.peers.naive import OpenVino, decode


@serve.deployment(num_replicas=2, max_ongoing_requests=16, ray_actor_options={"num_cpus": 0.5})
class Classifier:
    """One image a request."""

    def __init__(self) -> None:
        self.model = OpenVino()

    async def __call__(self, request: Request) -> dict[str, int]:
        """Decode and infer in the replica."""
        return {"class_id": self.model.classes([decode(await request.body())])[0]}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Classifier.bind())
    signal.pause()
