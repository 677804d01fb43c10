"""Real checkpoints of real architectures, and a real HTTP server that breaks on purpose."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch

from master.models import catalogue as catalogues
from master.models.catalogue import Architecture, Catalogue, Pretrained
from wire.card import Card, Preprocessing
from worker.models import build

# The two smallest of torchvision's classifiers, some 1.2 and 1.4 million parameters.
SMALL = "squeezenet1_1"
OTHER = "shufflenet_v2_x0_5"


@functools.cache
def state_dict(architecture: str, classes: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random weights, the same for the same arguments."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build(architecture, classes).state_dict()
    return {
        name: value.to(dtype).contiguous() if value.is_floating_point() else value
        for name, value in state.items()
    }


def write_safetensors(
    path: Path, architecture: str = SMALL, classes: int = 3, dtype: torch.dtype = torch.float32
) -> Path:
    """Weights without a card."""
    safetensors.torch.save_file(state_dict(architecture, classes, dtype), path)
    return path


def write_torch(
    path: Path,
    architecture: str = SMALL,
    classes: int = 1000,
    dtype: torch.dtype = torch.float16,
    *,
    legacy: bool = False,
) -> Path:
    """A state dict as torch writes it today, or as it did before 1.6."""
    state = state_dict(architecture, classes, dtype)
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


def card_of(weights: Path, **changes: Any) -> Card:
    """A true card of a `SMALL` file with three classes, but for `changes`."""
    data = weights.read_bytes()
    facts: dict[str, Any] = {
        "id": "mine",
        "architecture": SMALL,
        "classes": ["ant", "bee", "cat"],
        "preprocessing": Preprocessing(resize_px=72, crop_px=64),
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "format": "safetensors" if weights.suffix == ".safetensors" else "torch",
    }
    return Card(**(facts | changes))


def write_card(weights: Path, **changes: Any) -> Path:
    """The card beside the weights."""
    path = weights.with_suffix(".json")
    path.write_bytes(msgspec.json.encode(card_of(weights, **changes)))
    return path


def catalogue_with(
    weights: Path, url: str, architecture: str = SMALL, hash_prefix: str | None = None
) -> Catalogue:
    """The real catalogue, but `architecture` has one weights file: this one, published at `url`."""
    real = catalogues.load()
    old = real.known(architecture)
    preset = published(weights, url, hash_prefix)
    new = msgspec.structs.replace(old, weights=[preset], default=preset.name)
    others = [one for one in real if one.name != architecture]
    table = msgspec.structs.replace(real.table, architectures=[*others, new])
    return Catalogue(table, real.classes)


def published(weights: Path, url: str, hash_prefix: str | None = None) -> Pretrained:
    """`weights` as if torchvision published it at `url`."""
    data = weights.read_bytes()
    recommended: Pretrained = catalogues.load().known(SMALL).recommended
    return msgspec.structs.replace(
        recommended,
        url=url,
        hash_prefix=hash_prefix or hashlib.sha256(data).hexdigest()[:8],
        size_mib=round(len(data) / 2**20, 3),
    )


def architecture_of(name: str) -> Architecture:
    """As the real catalogue has it."""
    return catalogues.load().known(name)


@dataclass
class Host:
    """What the server does and has seen.

    `break_after` holds, for each coming answer, how many body bytes it sends
    before it drops the connection; when it is empty answers are whole. `shift`
    moves what its `Content-Range` claims.
    """

    data: bytes
    url: str = ""
    ranges: bool = True
    shift: int = 0
    status: int | None = None
    silent: bool = False
    break_after: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(data: bytes, name: str = "weights.pth", **behaviour: Any) -> Iterator[Host]:
    """A server of one file on loopback."""
    host = Host(data, **behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(host))
    host.url = f"http://127.0.0.1:{server.server_address[1]}/models/{name}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        host.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            host.asked.append(asked)
            self.close_connection = True
            if host.silent:
                host.closing.wait()
            elif host.status is not None:
                self.send_error(host.status)
            else:
                self._send_file(asked)

        def _send_file(self, asked: str | None) -> None:
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and host.ranges else 0
            body = host.data[start:]
            if start and not body:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                total = len(host.data)
                self.send_header("Content-Range", f"bytes {start + host.shift}-{total - 1}/{total}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: host.break_after.pop(0)] if host.break_after else body)

        def log_message(self, *_: object) -> None:
            """Requests are in `Host.asked`."""

    return Handler
