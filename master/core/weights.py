"""Weights on their way to workers, in the order asked, one slice of each worker at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import Executor

from master.core.workers import WorkerSession
from master.logs import fields
from master.models.weights import WeightsFile
from wire.messages import FetchWeights, ProtocolFault, WeightsChunk

log = logging.getLogger("lookout.core")

SLICE_BYTES_MAX = 2**20
ASKED_MAX = 64


class WeightsService:
    """Answers `FetchWeights`.

    Slices are at most `SLICE_BYTES_MAX` and each worker has one being read, so
    ten workers that join at once take turns, and none holds up an `Assign` for
    long. Answers come in the order of the questions.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._files: dict[str, WeightsFile] = {}
        self._asked: dict[str, deque[FetchWeights]] = {}

    def offer(self, file: WeightsFile) -> None:
        """Serve this file from now on (the ones before, too: a worker may be half-way)."""
        self._files[file.card.sha256] = file

    def fetch(self, session: WorkerSession, request: FetchWeights) -> None:
        """Answer after what this worker asked before."""
        asked = self._asked.setdefault(session.key, deque())
        if request.sha256 not in self._files:
            self._refuse(session, "unknown_weights", f"no weights {request.sha256} are served")
        elif len(asked) >= ASKED_MAX:
            self._refuse(session, "too_many_requests", f"{len(asked)} slices asked for at once")
        else:
            asked.append(request)
            if len(asked) == 1:
                self._read(session, asked)

    def forget(self, session: WorkerSession) -> None:
        """The worker has left."""
        self._asked.pop(session.key, None)

    def _read(self, session: WorkerSession, asked: deque[FetchWeights]) -> None:
        request = asked[0]
        file = self._files[request.sha256]
        length = min(request.length, SLICE_BYTES_MAX)
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._pool, file.read, request.offset, length)
        reading.add_done_callback(lambda done: self._answer(session, asked, file, done))

    def _answer(
        self,
        session: WorkerSession,
        asked: deque[FetchWeights],
        file: WeightsFile,
        done: asyncio.Future[bytes],
    ) -> None:
        if done.cancelled() or session.key not in self._asked:
            return
        request = asked.popleft()
        error = done.exception()
        if error is not None:
            self._refuse(session, "weights_unreadable", str(error))
            return
        session.send(
            WeightsChunk(
                sha256=request.sha256,
                offset=request.offset,
                size_bytes=file.card.size_bytes,
                data=done.result(),
            )
        )
        if asked:
            self._read(session, asked)

    def _refuse(self, session: WorkerSession, code: str, reason: str) -> None:
        log.error(**fields("weights_refused", worker=session.name, code=code, reason=reason))
        session.send(ProtocolFault(code=code, reason=reason))
        session.drop(reason)
