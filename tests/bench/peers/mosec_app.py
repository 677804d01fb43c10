"""Mosec with two workers that decode and infer; `BATCH` images at once."""

from __future__ import annotations

import os

from mosec import Server, Worker

from tests.bench.peers.naive import OpenVino, decode

BATCH = int(os.environ["PEERS_BATCH"])


class Classifier(Worker):
    """Bytes in, JSON out."""

    def __init__(self) -> None:
        self.model = OpenVino()

    def deserialize(self, data: bytes) -> bytes:
        """As it came."""
        return data

    def forward(self, data: list[bytes]) -> list[dict[str, int]]:
        """One batch."""
        bodies = data if isinstance(data, list) else [data]
        answers = [{"class_id": n} for n in self.model.classes([decode(b) for b in bodies])]
        return answers if isinstance(data, list) else answers[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classifier, num=2, max_batch_size=BATCH, max_wait_time=2)
    server.run()
