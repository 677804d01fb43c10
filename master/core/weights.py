"""Weights on their way to workers, read in a pool, a bounded number of slices at a time."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor

from master.core.workers import WorkerSession
from master.logs import fields
from master.models.weights import WeightsFile
from wire.messages import FetchWeights, ProtocolFault, WeightsChunk

log = logging.getLogger("lookout.core")

SLICE_BYTES_MAX = 1 * 2**20


class WeightsService:
    """Answers `FetchWeights`. Slices are at most `SLICE_BYTES_MAX`, so that ten workers
    that join at once take turns and none holds up an `Assign` for long."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._files: dict[str, WeightsFile] = {}

    def offer(self, file: WeightsFile) -> None:
        """Serve this file from now on (the ones before, too: a worker may be half-way)."""
        self._files[file.card.sha256] = file

    def fetch(self, session: WorkerSession, request: FetchWeights) -> None:
        """Read one slice in the pool and send it."""
        file = self._files.get(request.sha256)
        if file is None:
            reason = f"no weights with SHA-256 {request.sha256[:12]}… are served here"
            session.send(ProtocolFault(code="unknown_weights", reason=reason))
            session.drop(reason)
            return
        length = min(request.length, SLICE_BYTES_MAX)
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, file.read, request.offset, length)
        future.add_done_callback(lambda done: self._send(session, file, request, done))

    def _send(
        self,
        session: WorkerSession,
        file: WeightsFile,
        request: FetchWeights,
        done: asyncio.Future[bytes],
    ) -> None:
        error = done.exception()
        if error is not None:
            log.error(**fields("weights_unreadable", worker=session.name, error=repr(error)))
            session.send(ProtocolFault(code="weights_unreadable", reason=str(error)))
            session.drop("the weights can't be read")
            return
        session.send(
            WeightsChunk(
                sha256=request.sha256,
                offset=request.offset,
                size_bytes=file.card.size_bytes,
                data=done.result(),
            )
        )
