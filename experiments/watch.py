"""Who listens to the master during a replicate: `python -m experiments.watch ORDER`.

It runs on the master's host, says when the workers are ready, writes every `job`
event of the stream in the order in which it came, and on SIGTERM waits until no
job is open, says the final counters, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Final

import httpx
import msgspec

from experiments.load import say

POLL_S: Final = 0.2
CALL_TIMEOUT_S: Final = 10.0
READY_TIMEOUT_S: Final = 120.0
SETTLE_TIMEOUT_S: Final = 120.0


class Order(msgspec.Struct, kw_only=True, frozen=True):
    """What the process is told: how many workers make the cluster ready, where events go."""

    url: str
    workers: int
    events: str


class Watch:
    """One listener."""

    def __init__(self, order: Order, http: httpx.AsyncClient, out: IO[bytes]) -> None:
        self._order = order
        self._http = http
        self._out = out
        self._last_id = ""
        self._is_connected = False
        self.asked_to_end = asyncio.Event()

    async def run(self) -> None:
        """Ready, listen, settle."""
        await self._until(self._is_ready, READY_TIMEOUT_S, f"{self._order.workers} ready workers")
        listening = asyncio.ensure_future(self._listen())
        try:
            await self._until(self._is_told, CALL_TIMEOUT_S, "the event stream")
            model = await self._get("/model")
            card = {key: model.get(key) for key in ("id", "sha256", "architecture")}
            say("ready", {**card, "classes": len(model["classes"])})
            await self.asked_to_end.wait()
            settled = await self._settle()
            say("settled", {"open": settled, **await self._get("/stats")})
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _is_ready(self) -> bool:
        workers = (await self._get("/workers"))["workers"]
        well = [w for w in workers if w["ready"] and w["liveness"] == "alive"]
        return len(well) >= self._order.workers

    async def _is_told(self) -> bool:
        return self._is_connected

    async def _settle(self) -> int:
        """Wait until every job has ended; how many have not, 0 if all is well."""

        async def calm() -> bool:
            return await self._open_jobs() == 0

        with contextlib.suppress(TimeoutError):
            await self._until(calm, SETTLE_TIMEOUT_S, "every job to end")
        # The stream tells a change within 0.1 s: one more round for the last ones.
        await asyncio.sleep(2 * POLL_S)
        return await self._open_jobs()

    async def _open_jobs(self) -> int:
        counts = (await self._get("/stats"))["counts"]
        return sum(counts.get(state, 0) for state in ("queued", "leased", "backoff"))

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                await self._follow()
            await asyncio.sleep(POLL_S)

    async def _follow(self) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        timeout = httpx.Timeout(CALL_TIMEOUT_S, read=60.0)
        async with self._http.stream("GET", "/events", headers=headers, timeout=timeout) as answer:
            answer.raise_for_status()
            kind = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self._last_id = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    self._heard(kind, json.loads(value))

    def _heard(self, kind: str, data: dict[str, Any]) -> None:
        self._is_connected = True
        if kind == "job":
            result = data.get("result") or {}
            told = {key: data.get(key) for key in ("id", "state", "worker")}
            told |= {"class_id": result.get("class_id"), "at_s": time.monotonic()}
            self._out.write(json.dumps(told).encode() + b"\n")
        elif kind == "reset":
            self._out.write(json.dumps({"reset": True, "at_s": time.monotonic()}).encode() + b"\n")

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self._http.get(path, timeout=CALL_TIMEOUT_S)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    async def _until(
        self, done: Callable[[], Awaitable[bool]], timeout_s: float, what: str
    ) -> None:
        """Raise TimeoutError if it does not come; a server that is away is asked again."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if await done():
                    return
            await asyncio.sleep(POLL_S)
        raise TimeoutError(f"waited {timeout_s:g} s for {what}")


async def _main(order: Order, out: IO[bytes]) -> None:
    async with httpx.AsyncClient(base_url=order.url + "/api/v1", trust_env=False) as http:
        watch = Watch(order, http, out)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, watch.asked_to_end.set)
        await watch.run()


def main(path: Path) -> None:
    """Carry out one order."""
    order = msgspec.json.decode(path.read_bytes(), type=Order)
    with Path(order.events).open("wb") as out:
        asyncio.run(_main(order, out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
