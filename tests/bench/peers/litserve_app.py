"""LitServe with two workers. It reads annotations, so they can't be postponed here."""

import sys
from typing import Any

import litserve
from fastapi import Request, Response

from tests.bench.peers.naive import OpenVino, decode


class Api(litserve.LitAPI):
    """One image a request."""

    def setup(self, device: str) -> None:
        """Called in each worker."""
        self.model = OpenVino()

    def decode_request(self, request: Request, **_: Any) -> bytes:
        """The file of a form: LitServe takes forms and JSON."""
        return request["content"].file.read()

    def predict(self, body: bytes, **_: Any) -> int:
        """Decode and infer in one process."""
        return self.model.classes([decode(body)])[0]

    def encode_response(self, class_id: int, **_: Any) -> Response:
        """A line of JSON."""
        return Response(f'{{"class_id": {class_id}}}', media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/predict"), accelerator="cpu", workers_per_device=2)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
